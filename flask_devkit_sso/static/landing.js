// Completes a login whose code is in the URL fragment, which servers do not see. Load this first in
// <head>: until it has run, the code is in the address bar. The list above comes from `landing_js`.
.forEach((settings) => {
  "use strict";
  const uri = settings.redirectUri && new URL(settings.redirectUri);
  const script = document.currentScript.src;
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

  const params = uri && parse(location);
  if (!params) return;
  history.replaceState(null, "", uri.pathname + uri.search + uri.hash);
  if (top !== self) return;
  if ("devkitSsoOnward" in root.dataset) {
    root.dataset.devkitSsoOnward = ""; // the landing page: see onward.js
  } else {
    // Stop the application's scripts. Browsers paint nothing without a body.
    document.write("<body>");
    stop();
  }

  // Replace this page. Scripts in `html` do not run. A new login keeps the hash.
  const show = (html, hash) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    for (const link of hash ? page.links : []) {
      if (link.pathname === new URL("authorize", script).pathname) link.hash ||= hash;
    }
    document.replaceChild(page.documentElement, document.documentElement);
  };
  // If only the hash differs, a redirect makes the browser load the page.
  const go = (address) => {
    const { href, pathname, search, hash } = new URL(address, location);
    const isHere = hash && href === new URL(hash, location).href;
    const to = encodeURIComponent(pathname + search);
    location.replace(isHere ? new URL(`onward?to=${to}${hash}`, script) : href);
  };
  // After a download or an empty response, this page stays on the screen: say who is signed in.
  const stay = () =>
    fetch(new URL("signed-out", script))
      .then((response) => response.text())
      .then(show, () => {});
  fetch(new URL("callback", script), {
    method: "POST",
    headers: { Accept: "text/html", "Content-Type": "application/json" },
    body: JSON.stringify({ ...params, login: stored("login") }),
  })
    .then(async (response) => {
      const { headers, redirected, url } = response;
      const isPage = headers.get("Content-Type")?.startsWith("text/html");
      // Has this tab started the login that has ended? Then leaving.js has stored the page's hash.
      const isOwn = stored("login") && stored("login") === headers.get("X-DevKit-SSO-Login");
      const hash = isOwn ? stored("hash") : "";
      if (isPage && !redirected) return show(await response.text(), hash);
      const { next } = redirected ? { next: url } : await response.json();
      if (!next) throw next;
      if (isOwn) ["hash", "answer"].forEach((key) => delete sessionStorage[`devkit-sso-${key}`]);
      go(next.includes("#") ? next : next + hash);
      setTimeout(stay, 2000);
    })
    .catch(() => show(settings.noAnswer));
});
