"use strict";
// The popover of a number: hover or focus shows it, a click or Enter keeps it, Escape closes it.
(() => {
  const numbers = readData("numbers");
  const popover = document.getElementById("popover");
  let owner = null;
  let kept = false;
  let waiting = 0;

  const list = (rows) => {
    const made = element("dl");
    for (const [key, value] of rows) made.append(element("dt", key), element("dd", value));
    return made;
  };

  const part = (title, ...content) => [element("h4", title), ...content];

  const fill = (button) => {
    const measured = numbers.measurements[Number(button.dataset.m)];
    const name = button.dataset.metric;
    const [value, interval] = measured.numbers[name] || [button.textContent.trim(), ""];
    const meaning = numbers.meanings[numbers.names[name]];
    const shown = element("p", value, { class: "value" });
    if (interval) shown.append(" ", element("small", `95 % interval ${interval}`));
    const close = element("button", "×", { type: "button", class: "close", "aria-label": "Close" });
    close.addEventListener("click", () => hide(true));
    const parts = [close, element("h3", `${measured.backbone}, ${name}`), shown];
    if (meaning) {
      const direction = { higher: "Higher is better.", lower: "Lower is better.", neither: "" }[meaning.better];
      parts.push(element("p", `${meaning.short[0].toUpperCase()}${meaning.short.slice(1)}. ${meaning.how} ${direction}`));
    }
    parts.push(...part("Protocol", list(numbers.protocols[measured.protocol])));
    parts.push(...part("Where it comes from", list(measured.source)));
    if (measured.command) {
      const copy = element("button", "Copy", { type: "button", class: "small", "data-copy": measured.command });
      const box = element("div", "", { class: "command" });
      box.append(element("pre", measured.command), copy);
      parts.push(...part("Command", box));
    }
    popover.replaceChildren(...parts);
    popover.setAttribute("aria-label", `How ${name} of ${measured.backbone} was measured`);
  };

  const place = (button) => {
    const at = button.getBoundingClientRect();
    const [width, height] = [popover.offsetWidth, popover.offsetHeight];
    const [right, bottom] = [document.documentElement.clientWidth - width - 8, window.innerHeight - height - 8];
    const middle = Math.min(Math.max(at.left + at.width / 2 - width / 2, 8), right);
    let [left, top] = [middle, at.bottom + 6];
    if (top > bottom && at.right + 8 <= right) [left, top] = [at.right + 8, Math.max(bottom, 8)];
    else if (top > bottom && at.top - 6 - height >= 0) top = at.top - 6 - height;
    popover.style.left = `${left + window.scrollX}px`;
    popover.style.top = `${top + window.scrollY}px`;
  };

  const show = (button, keep) => {
    clearTimeout(waiting);
    if (owner && owner !== button) owner.removeAttribute("aria-expanded");
    if (owner !== button || popover.hidden) {
      fill(button);
      popover.hidden = false;
      popover.scrollTop = 0;
      place(button);
    }
    owner = button;
    kept = keep;
    button.setAttribute("aria-expanded", "true");
  };

  const hide = (back) => {
    clearTimeout(waiting);
    if (!owner) return;
    const last = owner;
    owner = null;
    kept = false;
    popover.hidden = true;
    last.removeAttribute("aria-expanded");
    if (back) {
      closing = true;
      last.focus();
      closing = false;
    }
  };
  let closing = false;

  const numberAt = (event) => (event.target instanceof Element ? event.target.closest("button.number") : null);
  document.addEventListener("pointerover", (event) => {
    const button = numberAt(event);
    if (event.pointerType === "touch" || kept) return;
    clearTimeout(waiting);
    if (button) waiting = setTimeout(() => show(button, false), 120);
    else if (owner && !popover.contains(event.target)) waiting = setTimeout(() => hide(false), 200);
  });
  document.addEventListener("focusin", (event) => {
    const button = numberAt(event);
    if (button && !closing && button.matches(":focus-visible")) show(button, false);
    else if (owner && !button && !popover.contains(event.target)) hide(false);
  });
  document.addEventListener("click", (event) => {
    const button = numberAt(event);
    if (!button) {
      if (owner && !popover.contains(event.target)) hide(false);
      return;
    }
    if (owner === button && kept) {
      hide(true);
      return;
    }
    show(button, true);
    if (event.detail === 0) popover.querySelector(".close").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && owner) hide(popover.contains(document.activeElement));
  });
  window.addEventListener("resize", () => hide(false));
})();
