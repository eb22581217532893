"use strict";
// The switch between light and dark. The choice lasts as long as the page is open.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme-switch");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`);
  };
  const choose = (dark) => {
    root.dataset.theme = dark ? "dark" : "light";
    show();
    document.dispatchEvent(new Event("themechange"));
  };
  root.dataset.theme = system.matches ? "dark" : "light";
  show();
  button.hidden = false;
  button.addEventListener("click", () => choose(root.dataset.theme !== "dark"));
  system.addEventListener("change", () => choose(system.matches));
})();
