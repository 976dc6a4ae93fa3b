// Service worker: keeps each file that the page has loaded, so that it works without a network, and adds the headers
// under which browsers give threads to WebAssembly.

const OWN = `effnet ${self.registration.scope} `, KEPT = OWN + "BUILD";

self.addEventListener("activate", event => event.waitUntil((async () => {
  for (const name of await caches.keys()) {
    if (name.startsWith(OWN) && name !== KEPT) await caches.delete(name);
  }
})()));

function isolated(response) {
  if (response.status !== 200) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, {status: response.status, statusText: response.statusText, headers});
}

async function answer(request) {
  const cache = await caches.open(KEPT), kept = await cache.match(request);
  if (kept) return isolated(kept);
  const response = await fetch(request);
  if (response.status === 200) await cache.put(request, response.clone());
  return isolated(response);
}

self.addEventListener("fetch", event => {
  const {method, url} = event.request;
  if (method === "GET" && new URL(url).origin === self.location.origin) event.respondWith(answer(event.request));
});
