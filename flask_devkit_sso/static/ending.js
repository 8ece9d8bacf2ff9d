// Runs on the page after the person has confirmed a login, and goes on to the page that was requested.
// Only this tab knows its hash: leaving.js has stored it together with the name of the login. The rest of
// this page has been read before: it stays on the screen if a download or an empty response follows.
"use strict";
(() => {
  const { login, next } = document.documentElement.dataset;
  let hash = "";
  try {
    if (sessionStorage["devkit-sso-login"] === login) {
      hash = sessionStorage["devkit-sso-hash"] ?? "";
      for (const key of ["hash", "answer"]) delete sessionStorage[`devkit-sso-${key}`];
    }
  } catch {
    // Storage is off.
  }
  location.replace(next.includes("#") ? next : next + hash);
})();
