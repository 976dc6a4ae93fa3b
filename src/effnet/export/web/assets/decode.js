// A photograph's pixels as PyTorch's loader has them: upright, without conversion of colours, transparency left out.

/**
 * Return an image's pixels, {data, width, height}: RGBA row by row, whose last byte means nothing.
 *
 * @param {Blob} file - of any kind that the browser decodes.
 */
export async function pixelsOf(file) {
  const options = {colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "none"};
  const bitmap = await createImageBitmap(file, options).catch(() => {
    throw new Error("can't be decoded by this browser");
  });
  const {width, height} = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true, colorSpace: "srgb"});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const image = context.getImageData(0, 0, width, height);
  return hasTransparency(image.data) ? await behindTransparency(file, image) : image;
}

function hasTransparency(data) {
  for (let at = 3; at < data.length; at += 4) if (data[at] !== 255) return true;
  return false;
}

// A canvas keeps colours multiplied by their opacity, so that those of transparent pixels are lost.
async function behindTransparency(file, image) {
  if (!self.ImageDecoder) return image;
  const decoder = new ImageDecoder(
    {data: await file.arrayBuffer(), type: file.type, premultiplyAlpha: "none", colorSpaceConversion: "none"});
  try {
    const {image: frame} = await decoder.decode(), {codedWidth, codedHeight} = frame;
    if (codedWidth !== image.width || codedHeight !== image.height) return image;
    const data = new Uint8ClampedArray(frame.allocationSize({format: "RGBA"}));
    await frame.copyTo(data, {format: "RGBA"});
    frame.close();
    return {data, width: image.width, height: image.height};
  } catch {
    return image; // a format that this decoder does not read
  } finally {
    decoder.close();
  }
}
