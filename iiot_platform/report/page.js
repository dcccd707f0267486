"use strict";
const pad = (n) => String(n).padStart(2, "0");
const clock = (d) => `${pad(d.getHours())}:${pad(d.getMinutes())}`;
const precise = (d) => `${clock(d)}:${pad(d.getSeconds())}`;
const full = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${precise(d)}`;

// Times are written in UTC; here they become those of the reader.
function localTimes() {
  for (const time of document.querySelectorAll("time[data-ms]")) {
    const at = new Date(Number(time.dataset.ms));
    time.textContent = { full, 3: precise }[time.dataset.form]?.(at) ?? clock(at);
  }
  const zone = document.getElementById("zone");
  if (zone) zone.textContent = `(${Intl.DateTimeFormat().resolvedOptions().timeZone})`;
}

// The nearest drawn point; its place in the picture gives its value back.
function nearest(path, x) {
  path.points ??= Array.from(path.getAttribute("d").matchAll(/[ML]([\d.e+-]+) ([\d.e+-]+)/g),
    (found) => [Number(found[1]), Number(found[2])]);
  return path.points.reduce((best, one) =>
    Math.abs(one[0] - x) < Math.abs((best ?? [Infinity])[0] - x) ? one : best, null);
}

function show(event) {
  const plot = event.target.closest?.(".plot");
  const tip = document.getElementById("tip") ?? Object.assign(document.createElement("div"), { id: "tip" });
  const path = plot?.querySelector("path.c0");
  const box = plot?.getBoundingClientRect();
  const point = path && nearest(path, (event.clientX - box.left) / box.width * 1000);
  if (!point) { tip.remove(); return; }
  const main = document.querySelector("main").dataset;
  const [low, high] = [Number(plot.dataset.low), Number(plot.dataset.high)];
  const value = high - point[1] / 200 * (high - low);
  const at = new Date(Number(main.start) + point[0] / 1000 * (main.end - main.start));
  tip.textContent = `${precise(at)}  ≈ ${value.toPrecision(4)}`;
  tip.style.left = `${point[0] / 10}%`;
  tip.style.top = `${point[1] / 2}%`;
  plot.append(tip);
}

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const section of document.querySelectorAll("details[id]:not([open])")) {
      next.getElementById(section.id)?.removeAttribute("open");
    }
    document.querySelector("main").replaceWith(next.querySelector("main"));
    document.body.classList.remove("lost");
    localTimes();
  } catch {
    document.body.classList.add("lost");
  }
  setTimeout(refresh, document.hidden ? 60000 : Number(document.body.dataset.refresh));
}

localTimes();
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
if (document.body.dataset.refresh) setTimeout(refresh, Number(document.body.dataset.refresh));
