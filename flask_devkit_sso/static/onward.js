// Runs on the landing page, after landing.js. If there is no authorization response, it loads the
// application's page. That request comes from this origin, so the landing page does not appear again.
"use strict";
(() => {
  const root = document.documentElement;
  const { devkitSsoOnward, devkitSsoHome } = root.dataset;
  const onParsed = (change) => addEventListener("DOMContentLoaded", change);

  // landing.js has found a response, which it posts.
  if (!devkitSsoOnward) {
    root.hidden = true;
    return onParsed(() => {
      const template = document.querySelector("main template");
      template?.parentNode.replaceChildren(template.content);
      root.hidden = false;
    });
  }

  // The same address again, byte for byte. A browser that has to load it in spite of a hash, or that
  // needs a ticket, goes through a redirect, which keeps the hash.
  const onward = new URL(devkitSsoOnward, location);
  const [page] = location.href.split("#");
  const hash = location.href.slice(page.length);
  let next = onward.href;
  if (devkitSsoHome === undefined) {
    onward.searchParams.set("to", page.slice(location.origin.length));
    next = hash || onward.searchParams.has("ticket") ? onward.href + hash : page;
  }
  if (next !== page) {
    // The ticket needs a Referer. And if the person has clicked here, Firefox would say after the
    // redirect that nobody's page has led there (Sec-Fetch-Site: none).
    document.querySelector("meta[name=referrer]").content = "same-origin";
  }

  // In a loop of redirects, the tab comes back here at once, and its history does not grow.
  let isLoop = false;
  try {
    const [time, length] = (sessionStorage["devkit-sso-landing"] ?? "").split(" ");
    const [navigation] = performance.getEntriesByType("navigation");
    isLoop =
      Date.now() - time < 10000 && +length === history.length && navigation?.type === "navigate";
    sessionStorage["devkit-sso-landing"] = `${Date.now()} ${history.length}`;
  } catch {
    // Storage is off.
  }
  if (isLoop) {
    return onParsed(() => {
      document.querySelectorAll(".no-script").forEach((element) => element.remove());
      document.querySelector("main a").href = next;
    });
  }
  stop(); // show nothing of this page
  location.replace(next);
})();
