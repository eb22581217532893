"use strict";
// Buttons that copy a text, or save it as a file; both without a network.
(() => {
  const said = (button, text) => {
    const before = button.textContent;
    button.textContent = text;
    announce(text);
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  const copyByHand = (text) => {
    const holder = element("textarea", "", { class: "visually-hidden", "aria-hidden": "true" });
    holder.value = text;
    document.body.append(holder);
    holder.select();
    const done = document.execCommand("copy");
    holder.remove();
    return done;
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyByHand(text);
    }
  };
  const textOf = (button) => {
    const [section, name] = button.dataset.file.split("/");
    return readData(section).files[name];
  };
  const save = (name, text) => {
    const address = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    const link = element("a", "", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };
  document.addEventListener("click", async (event) => {
    const button = event.target instanceof Element && event.target.closest("button[data-copy], button[data-file]");
    if (!button) return;
    if (button.dataset.copy !== undefined) {
      said(button, (await copy(button.dataset.copy)) ? "Copied" : "Not copied");
    } else if (button.dataset.act === "copy") {
      said(button, (await copy(textOf(button))) ? "Copied" : "Not copied");
    } else {
      save(button.dataset.file.split("/")[1], textOf(button));
      said(button, "Saved");
    }
  });
})();
