// Elements of the page. What comes from runs gets in as text only.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A drop-down list; groups: {label: [[value, text]]}, of which empty ones are left out.
export function fillSelect(select, groups, chosen) {
  const signature = JSON.stringify(groups);
  if (select.groupsSignature !== signature) {
    select.groupsSignature = signature;
    const parts = Object.entries(groups).filter(([, options]) => options.length);
    select.replaceChildren(
      ...parts.map(([label, options]) =>
        el("optgroup", { label }, ...options.map(([value, text]) => el("option", { value }, text))),
      ),
    );
  }
  select.value = chosen;
  if (select.selectedIndex < 0 && select.options.length) select.selectedIndex = 0;
  return select.value;
}

// A coloured dot of a legend; as a shape, since the page's policy takes no style attributes.
export function dot(color) {
  const name = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(name, "svg");
  const circle = document.createElementNS(name, "circle");
  for (const [key, value] of Object.entries({ width: 10, height: 10, "aria-hidden": "true" })) svg.setAttribute(key, value);
  for (const [key, value] of Object.entries({ cx: 5, cy: 5, r: 5, fill: color })) circle.setAttribute(key, value);
  svg.append(circle);
  return svg;
}

export function showHint(text, event) {
  const hint = document.getElementById("hint");
  hint.textContent = text;
  hint.hidden = false;
  const box = hint.getBoundingClientRect();
  hint.style.left = `${Math.max(0, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
  hint.style.top = `${Math.max(0, Math.min(event.clientY + 14, innerHeight - box.height - 8))}px`;
}

export function hideHint() {
  document.getElementById("hint").hidden = true;
}

export function cssColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
