// Completes a login whose code is in the URL fragment, which servers do not see. Load this first in
// <head>: until it has run, the code is in the address bar. The list above comes from `landing_js`.
.forEach((settings) => {
  "use strict";
  const uri = settings.redirectUri && new URL(settings.redirectUri);
  const script = document.currentScript.src;
  const onward = new URL("onward", script);
  const root = document.documentElement;

  // Return what this tab has stored, or "".
  const stored = (key) => {
    try {
      return sessionStorage[`devkit-sso-${key}`] ?? "";
    } catch {
      return ""; // storage is off
    }
  };
  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  // Return the parameters after `start`, or null.
  const after = (text, start) => {
    const rest = text.startsWith(start) ? text.slice(start.length) : "#";
    return /^([?&]|$)/.test(rest) ? rest : null;
  };
  // Return all parameters of an authorization response, or null if there is none.
  const parse = ({ origin, pathname, search, hash }) => {
    if (origin !== uri.origin || pathname !== uri.pathname) return null;
    // Some servers drop the hash. On a path of ours, it is not the application's.
    const isOurs = pathname === new URL("callback", script).pathname;
    const query = after(search, uri.search);
    // Ignore a hash that the redirect URI lacks: redirects keep it.
    const tail = uri.hash && (after(hash, uri.hash) ?? (isOurs ? "" : null));
    if (query === null || tail === null) return null;
    const params = { code: [], error: [], state: [], s: [] };
    for (const pair of (query + tail).split(/[?&]/)) {
      const [name, ...value] = pair.split("=");
      if (Object.hasOwn(params, name)) params[name].push(decode(value.join("=")));
    }
    return params.code.length + params.error.length ? params : null;
  };

  // Return what another page has passed on, or null.
  const unpack = ({ origin, hash }) => {
    try {
      return origin === uri.origin ? JSON.parse(decodeURIComponent(hash.slice(1))) : null;
    } catch {
      return null;
    }
  };

  const isPassedOn = location.pathname === onward.pathname;
  const params = uri && (isPassedOn ? unpack : parse)(location);
  if (!params) return;
  history.replaceState(null, "", uri.pathname + uri.search + uri.hash);
  if (top !== self) return;
  if (!("devkitSsoOnward" in root.dataset)) {
    // Not our landing page: stop its scripts, and pass the response on to ours.
    stop();
    return location.replace(`${onward}#${encodeURIComponent(JSON.stringify(params))}`);
  }
  root.dataset.devkitSsoOnward = ""; // see onward.js

  // Load a page. The browser parses it, because Trusted Types may forbid that to scripts.
  const load = (method, path, body) =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(method, new URL(path, script));
      request.responseType = "document";
      request.setRequestHeader("Accept", "text/html");
      request.setRequestHeader("Content-Type", "application/json");
      request.onload = () => resolve(request);
      request.onerror = reject;
      request.send(body);
    });
  // Replace this page. Scripts in `page` do not run. A new login keeps the hash.
  const show = (page, hash) => {
    for (const link of hash ? page.links : []) {
      if (link.pathname === new URL("authorize", script).pathname) link.hash ||= hash;
    }
    document.replaceChild(page.documentElement, document.documentElement);
  };
  // Show that there was no answer.
  const giveUp = () => {
    if (document.readyState === "loading") return addEventListener("DOMContentLoaded", giveUp);
    const { content } = document.querySelector("head template");
    document.title = content.querySelector("h1").textContent;
    document.querySelector("main").replaceChildren(content);
    root.dataset.reason = "server_unavailable";
    root.hidden = false;
  };
  // If only the hash differs, a redirect makes the browser load the page.
  const go = (address) => {
    const { href, pathname, search, hash } = new URL(address, location);
    const isHere = hash && href === new URL(hash, location).href;
    const to = encodeURIComponent(pathname + search);
    location.replace(isHere ? new URL(`onward?to=${to}${hash}`, script) : href);
  };
  // After a download or an empty response, this page stays on the screen: say who is signed in.
  const stay = () => load("GET", "signed-out").then(({ response }) => show(response)).catch(() => {});
  load("POST", "callback", JSON.stringify({ ...params, login: stored("login") }))
    .then((response) => {
      const header = (name) => response.getResponseHeader(name);
      const isRedirected = response.responseURL !== new URL("callback", script).href;
      // Has this tab started the login that has ended? Then leaving.js has stored the page's hash.
      const isOwn = stored("login") && stored("login") === header("X-DevKit-SSO-Login");
      const hash = isOwn ? stored("hash") : "";
      if (header("Content-Type")?.startsWith("text/html") && !isRedirected) {
        return show(response.response, hash);
      }
      const next = isRedirected ? response.responseURL : header("X-DevKit-SSO-Next");
      if (!next) throw response;
      if (isOwn) ["hash", "answer"].forEach((key) => delete sessionStorage[`devkit-sso-${key}`]);
      go(next.includes("#") ? next : next + hash);
      setTimeout(stay, 2000);
    })
    .catch(giveUp);
});
