// The page: asks the server what has changed and shows it.  Every text becomes a text node, never markup.
import { ENOUGH, Plot, looks, quality, race, requests, sign } from "./plots.js";

const byId = (id) => document.getElementById(id);
const state = {};
const waiting = { first: 1000, most: 15000, now: 1000 };
const phone = matchMedia("(max-width: 40rem)");

// --- saying things

const LEAST = "unknown";
const known = (value, say) => (value === null || value === undefined ? LEAST : say(value));
const count = (n) => n.toLocaleString("en");
const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
const percent = (share) => {
  const round = Math.round(share * 100);
  if (round === 0 && share > 0) return "<1 %";
  return round === 100 && share < 1 ? ">99 %" : `${round} %`;
};
const tenths = (share) => `${(share * 100).toFixed(1)} %`;
const small = (chance) => `${Number((chance * 100).toPrecision(2))} %`;
const points = (gain) => {
  const tenth = Math.round(gain * 1000) / 10;
  return `${tenth > 0 ? "+" : tenth < 0 ? "−" : ""}${Math.abs(tenth).toFixed(1)}`;
};
const round = (n) => (n >= 10 || n === 0 ? Math.round(n) : Number(n.toPrecision(2)));
const money = (usd) => {
  const digits = usd > 0 && usd < 0.1 ? 4 : 2;
  return `$${usd.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
};
const bet = (value) => {
  if (value >= 1e6) return "over 1,000,000";
  if (value > 0 && value < 0.01) return "<0.01";
  return value >= 100 ? count(Math.round(value)) : Number(value.toPrecision(2)).toString();
};
const short = (policy) => policy.slice(0, 12);
const clock = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const moment = (at) => clock.format(at * 1000);
const lasted = (seconds) => {
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return "under a minute";
  if (minutes < 120) return plural(minutes, "minute");
  return minutes < 2880 ? `${(minutes / 60).toFixed(1)} hours` : `${(minutes / 1440).toFixed(1)} days`;
};
const ago = (at) => {
  const seconds = Math.max(0, Date.now() / 1000 - at);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
};

// --- making elements

const SVG = "http://www.w3.org/2000/svg";

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}
const h = (tag, attributes, ...children) => made(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => made(document.createElementNS(SVG, tag), attributes, children);
const note = (...words) => h("p", { class: "note" }, ...words);
const when = (at) => (at === null ? LEAST : h("time", { datetime: new Date(at * 1000).toISOString(), title: ago(at) }, moment(at)));

/** Replace what a place holds; what was unfolded or scrolled stays so, and whoever had the focus keeps it. */
function fill(id, ...children) {
  const place = byId(id);
  const keyed = () => [...place.querySelectorAll("[data-key]")];
  const before = new Map(keyed().map((one) => [one.dataset.key, { open: one.open, top: one.scrollTop, left: one.scrollLeft }]));
  const key = place.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : null;
  place.replaceChildren(...children.flat().filter((child) => child !== null));
  for (const details of place.querySelectorAll("details")) {
    if (before.get(details.dataset.key)?.open) {
      details.open = true;
      details.unfold();
    }
  }
  for (const one of keyed()) {
    const was = before.get(one.dataset.key);
    if (was) [one.scrollTop, one.scrollLeft] = [was.top, was.left];
    if (key && one.dataset.key === key) (one.querySelector(":scope > summary") ?? one).focus({ preventScroll: true });
  }
  reach();
}

/** Only what scrolls is a stop of the Tab key. */
function reach() {
  for (const one of document.querySelectorAll(".scroll")) {
    const scrolls = one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight;
    if (scrolls) made(one, { tabindex: "0", role: "region", "aria-label": one.dataset.name }, []);
    else for (const name of ["tabindex", "role", "aria-label"]) one.removeAttribute(name);
  }
}
addEventListener("resize", reach);

/** A part that is made only when it is unfolded: tables of hundreds of lines cost nothing until somebody wants them. */
function folded(key, words, make) {
  const details = h("details", { "data-key": key }, h("summary", null, words));
  details.unfold = () => {
    if (details.children.length === 1) details.append(...[make()].flat());
  };
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    details.unfold();
    reach();
  });
  return details;
}

/** A table; a heading that begins with > stands to the right, and so do its cells; ~ stands before a column of words. */
function table(caption, headings, rows, { tall = false } = {}) {
  const looks = headings.map((heading) => ({ ">": "number", "~": "wide" })[heading[0]] ?? null);
  const cell = (content, k) => h(k === 0 ? "th" : "td", { scope: k === 0 ? "row" : null, class: looks[k] }, content);
  return h("div", { class: tall ? "scroll tall" : "scroll", "data-name": caption, "data-key": `table ${caption}` },
    h("table", null,
      h("caption", { class: "unseen" }, caption),
      h("thead", null, h("tr", null, headings.map((heading, k) => h("th", { scope: "col", class: looks[k] }, heading.replace(/^[>~]/, ""))))),
      h("tbody", null, rows.map((row) => h("tr", { class: row.dim ? "out" : null }, (row.cells ?? row).map(cell))))));
}

const legend = (...items) => h("ul", { class: "legend" }, items.map(([shape, words]) => h("li", null, s("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" }, shape), words)));
const stroke = (name, dash) => s("path", { d: "M0 6 H22", fill: "none", stroke: `var(${name})`, "stroke-width": 2.5, "stroke-dasharray": dash });
const dot = (name) => s("circle", { cx: 11, cy: 6, r: 4, fill: `var(${name})` });
const area = (name) => s("rect", { x: 0, y: 0, width: 22, height: 12, fill: `var(${name})` });
const meter = (share, look = "") => h("span", { class: "meter", "aria-hidden": "true" }, s("svg", { preserveAspectRatio: "none", viewBox: "0 0 100 1" }, s("rect", { class: `fill ${look}`, width: 100 * Math.min(Math.max(share, 0), 1), height: 1 })));

// --- the head of the page

function head() {
  const { champion, trying, budget, spend, staged, learning, task } = state;
  const score = champion.score;
  document.title = `${score.mean === null ? "" : `${percent(score.mean)} · `}${task} · Gainful`;
  byId("headline").textContent = score.mean === null
    ? `${task}: nothing is known yet of what is in service`
    : `${task}: ${percent(score.mean)} right since this policy came into service`;
  const held = [champion.is_pinned && "Pinned by a person: nothing replaces it.", champion.is_paused && "Paused by a person: nothing is learned."].filter(Boolean);
  byId("lede").textContent = [
    score.mean === null ? "No request of the champion's has a known score." :
      `The true average lies between ${tenths(score.low)} and ${tenths(score.high)}, with 95 % confidence however often you look; ${count(score.known)} of ${count(score.requests)} requests have a known score.`,
    ...held,
  ].join(" ");
  const canary = staged.find((stage) => stage.mode !== "holdback");
  const tile = (name, value, more) => h("div", null, h("dt", null, name), h("dd", null, value), h("dd", null, more));
  const entered = state.policies.at(-1);
  byId("tiles").replaceChildren(
    tile("In service", champion.policy ? h("code", null, short(champion.policy)) : "nothing", entered?.at ? `since ${moment(entered.at)}` : "since when is unknown"),
    tile("On its way in", canary ? `${percent(canary.share)} ${canary.mode}` : "nobody", canary ? `policy ${short(canary.policy)}` : trying ? `newest run: ${trying.state}` : "no run yet"),
    tile("Error budget left", budget ? small(budget.left) : LEAST, budget ? `of ${small(budget.alpha)}, after ${plural(budget.confirmations, "confirmation")}` : "no run has said its hold-out"),
    tile("Last 24 hours", plural(spend.day.requests, "request"), spend.day.requests ? `${percent(spend.day.errors / spend.day.requests)} errors, ${percent(spend.day.corrected / spend.day.requests)} corrected` : "none"),
    tile("Spent in 24 hours", known(spend.day.cost_usd, money), `${count(spend.day.prompt_tokens + spend.day.completion_tokens)} tokens, ${plural(spend.day.calls, "call")}`),
    tile("Left to learn today", learning ? left(learning) : LEAST, learning ? learning.state : "no watcher has said"),
  );
}

const left = ({ calls_left: calls, usd_left: usd }) => [calls === null ? "" : plural(calls, "call"), usd === null ? "" : money(usd)].filter(Boolean).join(", ") || "no limit";

// --- quality

const plots = {};

function showQuality() {
  const { quality: q, moves } = state;
  if (!q.at.length) {
    delete plots.quality;
    return fill("quality", note("No request has been counted yet. The watcher counts them; points stand for an hour each."));
  }
  const [length, name] = [[168, "week"], [24, "day"], [1, "hour"]].find(([hours]) => q.hours % hours === 0);
  const span = q.hours === length ? `${name === "hour" ? "an" : "a"} ${name}` : plural(q.hours / length, name);
  if (!plots.quality) {
    const [first, second, words, keys] = [h("div"), h("div"), h("figcaption"), h("div")];
    fill("quality", h("figure", null, words, keys, first, h("p", { class: "axis" }, "requests"), second), h("div", { id: "quality-table" }));
    plots.quality = new Plot(first, phone.matches ? 220 : 290, quality, readout);
    plots.requests = new Plot(second, 64, requests);
    second.after(plots.quality.readout);
    Object.assign(plots, { words, keys });
  }
  const has = (kind) => moves.some((move) => move.kind === kind);
  const seen = (arm) => q.arms.some((one) => one.arm === arm && one.known.some((n) => n > 0));
  const glyph = (kind, name) => s("text", { x: 5, y: 11, fill: `var(${name})`, "font-size": 13 }, sign(kind));
  plots.keys.replaceChildren(legend(
    [stroke("--accent"), "champion, average so far"], [area("--band"), "its 95 % band"], [dot("--accent"), "champion"],
    ...(seen("challenger") ? [[dot("--other"), "challenger"]] : []),
    ...(seen("former") ? [[dot("--former"), "former champion"]] : []),
    ...(has("promoted") || has("confirmed") ? [[glyph("promoted", "--good"), "promoted"]] : []),
    ...(has("rolled-back") ? [[glyph("rolled-back", "--bad"), "rolled back"]] : []),
    ...(has("rejected") ? [[glyph("rejected", "--other"), "rejected"]] : []),
    ...(has("alarm") ? [[glyph("alarm", "--bad"), "alarm"]] : []),
    ...(has("staged") ? [[stroke("--before", "2 4"), "stage begun"]] : [])));
  plots.words.textContent = `Share of requests that a check or a caller scored as right. A point is ${span}; the band holds at all times at once and starts anew with every champion. Points of fewer than ${ENOUGH} scored requests stand in the table alone.`;
  plots.quality.show({ quality: q, moves, phone: phone.matches }, summary(q));
  plots.requests.show({ quality: q }, `Requests, ${span} a bar; the most is ${count(Math.max(...q.requests))}.`);
  fill("quality-table", folded("quality", "As a table", () => table("Quality over time",
    ["from", "policy", ">requests", ">errors", ...q.arms.flatMap((arm) => [`>${arm.arm}`, ">of"]), ">so far", ">band"],
    q.at.map((at, k) => [when(at), h("code", null, q.policies[k] ? short(q.policies[k]) : "–"), count(q.requests[k]), count(q.errors[k]),
      ...q.arms.flatMap((arm) => [arm.mean[k] === null ? "–" : tenths(arm.mean[k]), count(arm.known[k])]),
      q.band_mean[k] === null ? "–" : tenths(q.band_mean[k]),
      q.band_mean[k] === null ? "–" : `${tenths(q.band_low[k])} to ${tenths(q.band_high[k])}`]).reverse(), { tall: true })));
}

function summary(q) {
  const last = q.band_mean.findLastIndex((mean) => mean !== null);
  if (last < 0) return "Quality over time: no score is known.";
  return `Quality over time, from ${moment(q.at[0])}: the champion's average is ${tenths(q.band_mean[last])}, within ${tenths(q.band_low[last])} and ${tenths(q.band_high[last])}. The table below has every point.`;
}

function readout({ quality: q }, data, at) {
  const k = q.at.indexOf(data[0][at] - q.hours * 1800);
  if (k < 0) return "";
  const arms = q.arms.filter((arm) => arm.mean[k] !== null).map((arm) => `${arm.arm} ${tenths(arm.mean[k])} of ${arm.known[k]}`);
  const band = q.band_mean[k] === null ? [] : [`so far ${tenths(q.band_mean[k])} (${tenths(q.band_low[k])} to ${tenths(q.band_high[k])})`];
  return [moment(q.at[k]), ...arms, ...band, q.policies[k] ? `policy ${short(q.policies[k])}` : ""].filter(Boolean).join(" · ");
}

// --- what is being tried

function showStages() {
  const { staged, held } = state;
  const alone = held && !staged.some((one) => one.mode === "holdback") ? h("div", { class: "stage" }, h("h3", null, "The champion by itself"), against(held)) : null;
  fill("stages", staged.length ? null : note("Nobody is on its way in, and no former champion is held back."), staged.length || alone ? h("div", { class: "split" }, staged.map(stage), alone) : null);
}

function showLearning() {
  const { learning } = state;
  fill("learning", learning
    ? h("p", null, h("strong", null, `Learning: ${learning.state}. `), `${learning.why} `, h("span", { class: "note" }, `Said ${moment(learning.at)}; left today: ${left(learning)}.`))
    : note("No watcher has said whether it learns, or why not."));
}

function showRun() {
  const { trying } = state;
  if (!trying) return fill("run", note("No run has been made."));
  fill("run",
    h("h3", null, `Newest run: ${trying.state}`),
    note(trying.why ? `Begun ${trying.at === null ? "" : `${moment(trying.at)}, `}because of ${trying.why}. ` : "", `${trying.run} with ${trying.model}, on ${plural(trying.dev, "dev case")}. ${trying.certifiable} ${trying.obstacle}`),
    h("div", { class: "split" }, trying.looks ? confirmation(trying.looks) : null, trying.race ? raced(trying.race) : null));
}

function stage(shown) {
  const name = { shadow: "Shadow", canary: "Canary", holdback: "Hold-back" }[shown.mode];
  const steps = state.moves.filter((move) => move.kind === "staged" && move.policy === shown.policy && shown.mode !== "holdback");
  const score = (rate) => (rate.mean === null ? LEAST : `${tenths(rate.mean)} (${tenths(rate.low)} to ${tenths(rate.high)})`);
  return h("div", { class: "stage" },
    h("h3", null, shown.mode === "holdback" ? `Hold-back: the former champion answers ${percent(shown.share)}` : `${name}: policy ${short(shown.policy)} answers ${percent(shown.share)}${shown.mode === "shadow" ? " unheard" : ""}`),
    steps.length > 1 || shown.mode !== "holdback" ? h("ol", { class: "steps", "aria-label": "Stages so far" },
      steps.map((move, k) => h("li", { "aria-current": k === steps.length - 1 ? "step" : null }, move.text.replace("answers ", "").replace(" of requests", "").replace(", beside the champion", "")))) : null,
    table(`${name}, the two policies since ${moment(shown.at)}`, ["policy", ">requests", ">scored", ">right"], [
      [h("span", null, shown.mode === "holdback" ? "former " : "challenger ", h("code", null, short(shown.policy))), count(shown.ours.requests), count(shown.ours.known), score(shown.ours)],
      [h("span", null, "champion ", h("code", null, short(shown.champion))), count(shown.theirs.requests), count(shown.theirs.known), score(shown.theirs)],
    ]),
    shown.evidence ? compared(name, shown.evidence) : null,
    shown.mode === "holdback" && state.held ? against(state.held) : null,
    shown.mode === "holdback" ? null : changes("diff challenger", "What it would change", shown.diff));
}

const need = (value, needed, look) => (needed === null ? bet(value) : h("span", null, `${bet(value)} of ${bet(needed)}`, meter(Math.log(Math.max(value, 1)) / Math.log(needed), look)));

function compared(name, { bets, at, seen, why }) {
  const asOf = at === null ? "when this stage began" : `as of ${moment(at)}`;
  return [
    bets.length ? table(`${name}, evidence ${asOf}`, ["compared", ">pairs", ">points", ">harm", ">no harm"],
      bets.map((one) => [one.name, known(one.n, count), known(one.mean, points), known(one.harm, (value) => need(value, one.harm_needed, "harm")), known(one.worth, (value) => need(value, one.worth_needed, ""))])) : note("Nothing has been compared yet."),
    at === null ? null : h("p", null, why || `${known(seen, (n) => plural(n, "comparison"))} in this stage`, "."),
    note(`Evidence ${asOf}, from the challenger's first stage on. The two bets start at 1: the one on harm takes the challenger back, the one on no harm lets it go on, once they reach what is needed.`),
  ];
}

function against(held) {
  return [
    table("Evidence against the champion", ["suspected", ">seen", ">evidence"], [
      ["worse than the former champion", count(held.compared), known(held.against_former, (value) => need(value, held.needed, "harm"))],
      held.beside ? ["its requests fail more often", count(held.beside), known(held.failing, (value) => need(value, held.needed, "harm"))] : null,
      held.before === null ? null : [held.is_back ? "worse than before it left" : "worse than the former champion was", count(held.known), known(held.as_before, (value) => need(value, held.needed, "harm"))],
      ["quality has fallen", count(held.known), held.reference === null ? LEAST : known(held.by_itself, (value) => need(value, held.needed, "harm"))],
    ].filter(Boolean)),
    note(`As of ${moment(held.at)}. ${held.gain === null ? "Nothing has been compared with a former champion yet." : `The champion is ${points(held.gain)} points on the former one.`} ${held.reference === null ? "What its quality is held against is not known yet." : `Its quality is held against ${tenths(held.reference)}, a bound below what it was first.`} ${held.before === null ? "" : `${held.is_back ? "Before it left it" : "The former champion's"} was ${tenths(held.before)} at least. `}Once evidence reaches what is needed, the champion is taken back or an alarm raised.`),
  ];
}

const changes = (key, words, diff) => (diff === null ? note("Its words were forgotten.") : diff.length ? folded(key, words, () => h("pre", { class: "diff", "aria-label": "Lines that begin with a minus sign were removed, with a plus sign added" },
  diff.map((line) => h("span", { class: line.kind }, line.text)))) : note("The first one, or no change."));

function confirmation(shown) {
  const place = h("div");
  const last = shown.n.length - 1;
  const graded = shown.test === "e-process";
  const words = last < 0 ? "The first look has not come yet."
    : `After ${count(shown.n[last])} of ${count(shown.size)} held-out cases: ${graded ? "evidence" : "wins"} ${bet(shown.statistic[last])}, ${shown.boundary[last] === null ? "no number could promote yet" : `${bet(shown.boundary[last])} promotes`}.`;
  const figure = h("figure", null,
    h("figcaption", null, `Confirmation of policy ${short(shown.challenger)}, at level ${small(shown.level)}. ${words}`),
    last < 0 ? null : legend([stroke("--accent"), graded ? "evidence" : "cases only the challenger got right"], [stroke("--bad", "5 5"), "what promotes"]),
    place,
    shown.promoted === null ? null : h("p", null, h("strong", { class: shown.promoted ? "good" : "" }, shown.promoted ? `Promoted, at least ${points(shown.low)} points. ` : "Not promoted. "), shown.reason),
    last < 0 ? null : folded("looks", "Look by look", () => table("Looks of the confirmation", [">cases", graded ? ">evidence" : ">wins", ">promotes", ">chance"],
      shown.n.map((n, k) => [count(n), bet(shown.statistic[k]), shown.boundary[k] === null ? "out of reach" : bet(shown.boundary[k]), percent(shown.chance[k])]))));
  if (last >= 0) later(() => new Plot(place, 220, looks, (_, data, at) => `${count(data[0][at])} cases: ${data[1][at] === null ? "" : bet(data[1][at])}${data[2][at] === null || data[2][at] === undefined ? "" : `, ${bet(data[2][at])} promotes`}`).show(shown, words));
  return figure;
}

function raced(shown) {
  const place = h("div");
  const lead = shown.racers.filter((racer) => racer.gain.length).sort((a, b) => b.gain.at(-1) - a.gain.at(-1))[0];
  const words = `Race of round ${shown.round}, points against the best policy so far. ${lead ? `${lead.label} leads with ${points(lead.gain.at(-1))}.` : ""}`;
  const figure = h("figure", null,
    h("figcaption", null, words, shown.gain_over_champion === null ? "" : ` The best is ${points(shown.gain_over_champion)} on the champion, on dev cases, which claims nothing.`),
    place,
    folded("race", "Every candidate", () => table("Candidates of the race", ["", "learner", "~change", ">cases", ">gain", "fate"],
      shown.racers.map((racer) => ({ dim: racer.fate.startsWith("dropped"), cells: [racer.label, racer.learner, racer.change, racer.n.length ? count(racer.n.at(-1)) : "–", racer.gain.length ? points(racer.gain.at(-1)) : "–", racer.fate] })))));
  later(() => new Plot(place, 220, race, (all, data, at) => [`${count(data[0][at])} cases`, ...all.racers.map((racer, k) => (data[k + 1][at] === null ? "" : `${racer.label} ${points(data[k + 1][at] / 100)}`))].filter(Boolean).join(" · ")).show(shown, words));
  return figure;
}

const later = (work) => requestAnimationFrame(work); // once its place is on the page and has a width

// --- errors, and what was mended

function showErrors() {
  const { errors } = state;
  const filled = errors.filter((block) => block.groups.length);
  fill("errors", filled.length ? filled.map(groups) : note("No error is known."),
    state.has_text ? null : note("Examples are not shown: prompts are not stored in full, or a key would show what others said."));
}

function groups(block) {
  const share = (n, of) => (of ? n / of : 0);
  const most = Math.max(...block.groups.flatMap((one) => [share(one.before, block.n_before), share(one.after, block.n_after)]), 0.01);
  const bar = (value, y, look) => s("rect", { class: `fill ${look}`, x: 0, y, width: (100 * value) / most, height: 7, rx: 0 });
  const title = block.where === "traffic" ? "In traffic, by the policy that answered last" : "On held-out cases, when the champion was confirmed";
  return h("div", null,
    h("h3", null, title),
    note(block.where === "traffic" ? `Before: ${plural(block.n_before, "case")} last answered by earlier policies. Now: ${plural(block.n_after, "case")} by the champion.` : `Both policies answered the same ${plural(block.n_before, "case")}.`),
    legend([area("--before"), "before"], [area("--accent"), "now"]),
    h("ul", { class: "groups" }, block.groups.map((one) => h("li", null,
      h("div", { class: "name" }, h("span", null, one.group), h("span", { class: "shares" }, `${count(one.before)} → ${count(one.after)}`)),
      one.is_judged ? note("Only checks that nobody trusts say so: a hint, no proof.") : null,
      s("svg", { class: "bars", viewBox: "0 0 100 16", preserveAspectRatio: "none", role: "img", "aria-label": `before ${percent(share(one.before, block.n_before))}, now ${percent(share(one.after, block.n_after))} of cases` },
        bar(share(one.before, block.n_before), 0, "was"), bar(share(one.after, block.n_after), 9, "")),
      one.examples_before.length + one.examples_after.length
        ? folded(`${block.where} ${one.group}`, "Examples", () => [...examples("before", one.examples_before), ...examples("now", one.examples_after)]) : null))));
}

const examples = (words, found) => found.map((one) => h("dl", { class: "example" },
  h("dt", null, "asked"), h("dd", null, one.asked),
  one.answered ? [h("dt", null, words === "now" ? "answered" : "was answered"), h("dd", { class: "mono" }, one.answered)] : [],
  one.said ? [h("dt", null, "check says"), h("dd", null, one.said)] : []));

function showKept() {
  const { repeated, forgotten, probed, labels, cases } = state;
  const rate = (found) => (found.n ? `${percent(found.count / found.n)} (${percent(found.low)} to ${percent(found.high)}), ${count(found.count)} of ${count(found.n)}` : LEAST);
  fill("kept",
    h("dl", { class: "facts" },
      h("dt", null, "Errors that came back"), h("dd", null, rate(repeated), note("of repaired errors, asked again of the champion")),
      h("dt", null, "Right answers forgotten"), h("dd", null, rate(forgotten), note("of cases that the former champion had right")),
      h("dt", null, "Model behind the name"), h("dd", null, rate(probed), note("of probes that were right twice are wrong now, under the same policy")),
      h("dt", null, "Scored by callers"), h("dd", null, cases ? `${count(labels)} of the newest ${plural(cases, "case")}` : LEAST, note("the others by checks, as far as known; nobody was asked to label"))));
}

function showPromotions() {
  const { promotions } = state;
  const minutes = (value) => known(value, (n) => lasted(60 * n));
  fill("promotions", promotions.length ? [
    table("What each promotion took", ["policy", ">failure to certified", ">certified to service", ">in all", ">labels", ">runs", ">calls", ">tokens", ">money"], [...promotions].reverse().map((one) => [
      h("code", null, short(one.policy)), minutes(one.minutes_to_certified), minutes(one.minutes_to_service), minutes(one.minutes), known(one.labels, count),
      known(one.runs, count), known(one.spent, (spent) => count(spent.calls ?? 0)), known(one.spent, (spent) => count((spent.prompt_tokens ?? 0) + (spent.completion_tokens ?? 0))), known(one.spent?.cost_usd, money)])),
    note("From the first failure that it fixed, of those its run learned from, to when it was certified, and to when it answered all callers. Labels: cases of that run of which a caller's word was used. Calls, tokens and money: all runs since the promotion before, failed ones too, and shadows."),
  ] : note("No policy has been proven and brought in yet."));
}

// --- corrections, spend, error budget

function showCorrections() {
  const { corrections, correction_model: model } = state;
  if (!corrections.length) return fill("corrections", note("Nothing is known of corrections: no model has answered yet."));
  const tried = (method, value) => (method.n ? value : "–");
  fill("corrections",
    note(`With ${model}, on drafts of the policy in service. A method is open while its benefit is certainly above zero.`),
    table("Methods of correction", ["method", "state", ">trials", ">fixed", ">broken", ">net", ">at least", ">calls", ">tokens"],
      corrections.map((one) => ({ dim: !one.is_open, cells: [one.method, h("span", { class: one.is_open ? "tag good" : "tag" }, one.is_open ? "open" : "closed"), count(one.n), tried(one, count(one.fixed)), tried(one, count(one.broken)),
        tried(one, known(one.net, points)), tried(one, known(one.low, points)), tried(one, one.extra_calls.toFixed(1)), tried(one, count(Math.round(one.extra_tokens)))] }))),
    folded("why", "Why each is open or closed", () => h("ul", null, corrections.map((one) => h("li", null, `${one.method}: ${one.why}`)))));
}

function showSpend() {
  const { spend } = state;
  const row = (name, one) => [name, one.requests === undefined ? "–" : count(one.requests), count(one.calls ?? 0), count((one.prompt_tokens ?? 0) + (one.completion_tokens ?? 0)), known(one.cost_usd, money)];
  const extra = spend.all.requests ? (1000 * spend.all.extra_calls) / spend.all.requests : null;
  fill("spend",
    table("Spend", ["", ">requests", ">calls", ">tokens", ">money"], [row("Serving, 24 hours", spend.day), row("Serving, all", spend.all), row(`Learning, ${plural(spend.runs, "run")}`, spend.learning)]),
    h("dl", { class: "facts" },
      h("dt", null, "Corrections"), h("dd", null, known(spend.correction, (one) => `${count(round(one.calls))} calls, ${count(round(one.tokens))} tokens, ${known(one.usd, money)} per 1,000 requests`), spend.correction ? note(`${count(round(spend.correction.corrected))} of 1,000 replies were replaced`) : null),
      h("dt", null, "Calls beyond the first"), h("dd", null, known(extra, (value) => `${value.toFixed(1)} per 1,000 requests`), note("of votes, refinements and corrections")),
      h("dt", null, "Added by us"), h("dd", null, known(spend.all.added_ms, (value) => `${value.toFixed(2)} ms a request`)),
      h("dt", null, "Failed open"), h("dd", null, plural(spend.all.failed_open, "request"))));
}

function showBudget() {
  const { budget } = state;
  fill("budget", budget ? [
    h("p", null, h("strong", null, small(budget.left)), ` of ${small(budget.alpha)} is left for this hold-out.`),
    meter(budget.left / budget.alpha),
    h("dl", { class: "facts" },
      h("dt", null, "Next confirmation"), h("dd", null, `at level ${small(budget.level)}`),
      h("dt", null, "So far"), h("dd", null, `${plural(budget.confirmations, "confirmation")}, ${plural(budget.promotions, "promotion")}`)),
    note(`The chance that anything was ever promoted that is no better stays below ${small(budget.alpha)}. ${budget.fresh ? "Every confirmation gets new cases, so a promotion costs nothing." : "A failed confirmation costs its level; a promotion leaves its own level to what follows."}`),
  ] : note("Unknown: no run has said which hold-out it uses."));
}

// --- policies and moves

const REASONS = { baseline: "the task's own", confirmed: "confirmed", promoted: "promoted", "rolled-back": "back after a roll-back", begun: "begun with all callers'" };

function showPolicies() {
  const { policies, champion } = state;
  fill("policies", policies.length ? [...policies].reverse().map((one, k) => h("article", { class: "policy" },
    h("h3", null, h("code", null, short(one.policy)), one.policy === champion.policy && k === 0 ? h("span", { class: "tag good" }, "in service") : null, h("span", { class: "note" }, REASONS[one.reason] ?? one.reason, one.at === null ? "" : ", ", one.at === null ? null : when(one.at), one.to_the_hour && one.at !== null ? ", to the hour" : "")),
    one.receipt ? h("p", { class: "note" }, "Receipt: ", h("code", null, `gainful verify ${one.receipt}`)) : null,
    changes(`diff ${policies.length - k}`, "What it changed", one.diff))) : note("Nothing has been put into service."));
}

function showMoves() {
  fill("moves", state.moves.length ? h("ol", { class: "moves", reversed: true }, [...state.moves].reverse().map((move) => h("li", null,
    h("span", { class: "soft" }, move.at === null ? "time unknown" : when(move.at), move.to_the_hour && move.at !== null ? " ~" : ""),
    h("span", null, h("span", { class: "mark", "aria-hidden": "true" }, sign(move.kind)), move.kind),
    h("span", null, move.policy ? h("code", null, short(move.policy)) : null, " ", move.text, move.void ? h("span", { class: "void" }, move.void) : null)))) : note("Nothing has happened yet."));
}

const PARTS = [
  [["champion", "trying", "budget", "spend", "staged", "policies", "learning"], head],
  [["quality", "moves"], showQuality],
  [["staged", "held", "moves"], showStages],
  [["learning"], showLearning],
  [["trying"], showRun],
  [["errors", "has_text"], showErrors],
  [["repeated", "forgotten", "probed", "labels", "cases"], showKept],
  [["promotions"], showPromotions],
  [["corrections", "correction_model"], showCorrections],
  [["spend"], showSpend],
  [["budget"], showBudget],
  [["policies", "champion"], showPolicies],
  [["moves"], showMoves],
];

// --- what changes

function changed(news) {
  const before = { ...state };
  Object.assign(state, news);
  trouble(state.trouble);
  if (state.task === undefined) return;
  byId("page").hidden = false;
  for (const [members, show] of PARTS) if (members.some((name) => name in news)) show();
  announce(before);
  if (!state.trouble) beat();
}

function announce(before) {
  if (!before.moves) return;
  const old = new Set(before.moves.map((move) => `${move.kind} ${move.at} ${move.policy}`));
  const said = state.moves.filter((move) => !old.has(`${move.kind} ${move.at} ${move.policy}`)).map((move) => `${move.kind}: ${move.policy ? `policy ${short(move.policy)} ` : ""}${move.text}`);
  if (state.trying && before.trying?.state !== state.trying.state) said.push(`Newest run: ${state.trying.state}`);
  if (said.length) byId("news").textContent = said.join(". ");
}

function trouble(words) {
  const place = byId("trouble");
  place.hidden = !words;
  place.textContent = words ? `The store cannot be read: ${words}. What stands below is from ${state.at ? moment(state.at) : "before"}.` : "";
  if (words) byId("page").hidden = false;
  status(words ? "trouble" : "live", words ? "Store not readable" : "Live");
}

let changedAt = 0;
function beat() {
  changedAt = Date.now() / 1000;
  const mark = document.querySelector(".dot");
  mark.classList.remove("beat");
  void mark.offsetWidth; // starts the animation again
  mark.classList.add("beat");
  tick();
}

function status(name, words) {
  byId("state").dataset.state = name;
  byId("state-words").textContent = words;
}

function tick() {
  if (byId("state").dataset.state === "live" && changedAt) byId("state-words").textContent = `Live, changed ${ago(changedAt)}`;
}

// --- the connection

const key = () => sessionStorage.getItem("gainful-key");

async function asked(path, options = {}) {
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.status === 401) throw Object.assign(new Error("a key is needed"), { needsKey: true });
  if (!response.ok) throw new Error((await response.json().catch(() => null))?.error?.message ?? `the server answered ${response.status}`);
  return response;
}

let stream = null;

async function listen() {
  stream?.abort();
  const own = (stream = new AbortController());
  try {
    const names = await (await asked("/dashboard/tasks", { signal: own.signal })).json();
    const task = choose(names);
    if (task === null) throw new Error("the store knows no task yet");
    const response = await asked(`/dashboard/events?task=${encodeURIComponent(task)}`, { signal: own.signal });
    byId("door").hidden = true;
    waiting.now = waiting.first;
    await read(response.body.getReader());
    throw new Error("the server ended the connection");
  } catch (error) {
    if (own.signal.aborted) return;
    if (error.needsKey) return door();
    status("trouble", `No connection, trying again: ${error.message}`);
    setTimeout(() => own === stream && !document.hidden && listen(), waiting.now);
    waiting.now = Math.min(waiting.now * 2, waiting.most);
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data) changed(JSON.parse(data));
    }
  }
}

function choose(names) {
  const wanted = new URLSearchParams(location.search).get("task");
  const task = names.includes(wanted) ? wanted : names[0] ?? null;
  const select = byId("task");
  select.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === task }, name)));
  byId("choice").hidden = names.length === 0;
  return task;
}

function door() {
  status("wait", "A key is needed");
  byId("door-words").textContent = key() ? "The server does not know this key." : "";
  sessionStorage.removeItem("gainful-key");
  byId("page").hidden = true;
  byId("door").hidden = false;
  byId("key").focus();
}

byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("gainful-key", byId("key").value.trim());
  byId("key").value = "";
  listen();
});
byId("task").addEventListener("change", (event) => {
  history.replaceState(null, "", `?task=${encodeURIComponent(event.target.value)}`);
  for (const name of Object.keys(state)) delete state[name];
  listen();
});
document.addEventListener("visibilitychange", () => (document.hidden ? stream?.abort() : listen()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (state.task === undefined) return;
  plots.quality?.redraw();
  plots.requests?.redraw();
  showRun();
});
byId("contents").append(...[...document.querySelectorAll("h2")].map((title) => h("li", null, h("a", { href: `#${title.id}` }, title.textContent))));
setInterval(tick, 1000);
listen();
