// The page of hksvd: asks the camera once a second and draws what it says. Text is only ever set as text.
"use strict";
(() => {
  const CGI = "/x/json-hksvd.cgi";
  const KEPT = 120; // samples of the chart, one a second
  const by = (id) => document.getElementById(id);
  const samples = [];
  let status = null;
  let rate = 0; // kbit/s; there is none while little is held
  let revealed = false;

  async function ask(what, options) {
    const answer = await fetch(what ? `${CGI}?do=${what}` : CGI, { cache: "no-store", ...options });
    if (answer.status === 401 || answer.redirected) location.assign("/login.html");
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error || `the camera answers ${answer.status}`);
  }

  function alarm(text) {
    by("alert").textContent = text;
    by("alert").hidden = !text;
  }

  // ------------------------------------------------------------ status

  const STATES = {
    unpaired: ["not paired", "warm"], off: ["camera off", ""], idle: ["idle", ""], armed: ["ready to record", "good"],
    live: ["live view", "good"], recording: ["recording", "bad"],
  };

  function badge(element, [text, colour]) {
    element.textContent = text;
    element.className = `badge ${colour}`;
  }

  function span(s) {
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
  }

  function facts() {
    const { source, prebuffer, recording } = status;
    const still = recording.active ? `${recording.fragments} fragments in ${span(recording.since_s)}` : null;
    rate = source.bitrate_kbps || rate;
    const lines = [
      ["Source", `${source.spec || "none"}, ${source.state}`],
      ["Video", source.width ? `${source.width}×${source.height}, ${source.fps.toFixed(1)} fps, ${rate} kbit/s` : "–"],
      ["Key frames", source.gop_s ? `every ${source.gop_s.toFixed(1)} s` : "–"],
      ["Sound", source.audio],
      ["Prebuffer", status.recording_armed
        ? `${prebuffer.held_s.toFixed(1)} s of ${prebuffer.capacity_s.toFixed(0)} s` : "fills once recording is switched on"],
      ["Recording", still || (status.recording_armed ? "armed, waits for motion" : "not switched on in Home")],
      ["Watching", status.live_sessions === 1 ? "1 live view" : `${status.live_sessions} live views`],
      ["Memory", `${(status.rss_kb / 1024).toFixed(1)} MB`],
      ["hksvd", `${status.version}, up ${span(status.uptime_s)}`],
    ];
    by("facts").replaceChildren(...lines.flatMap((words) => words.map((word, n) => {
      const element = document.createElement(n ? "dd" : "dt");
      element.textContent = word;
      return element;
    })));
  }

  function show() {
    by("name").textContent = document.title = status.name;
    badge(by("state"), STATES[status.state] || [status.state, ""]);
    badge(by("motion"), status.motion.on ? ["moving", "warm"] : ["quiet", ""]);
    const { level, threshold, baseline, mode } = status.motion;
    by("level").textContent = `${Math.max(0, level).toFixed(2)} of ${threshold.toFixed(2)}`;
    by("baseline").textContent = baseline ? `${(2 ** baseline / 1000).toFixed(1)} kB (${mode})` : `– (${mode})`;
    alarm(status.warnings.join(" · "));
    facts();
    pairing();
    samples.push({ level, threshold, baseline, on: status.motion.on });
    if (samples.length > KEPT) samples.shift();
    draw();
  }

  // ------------------------------------------------------------ pairing

  let drawn = false;

  function pairing() {
    const open = !status.paired || revealed;
    by("code").hidden = by("setup").hidden = !(open && drawn);
    by("reveal").hidden = open;
    by("paired").textContent = status.paired
      ? `Paired: ${status.pairings} ${status.pairings === 1 ? "controller" : "controllers"}, ${status.controllers} connected.`
      : "Scan it with the Home app, or type the code there.";
    if (open && !drawn) code().catch((error) => alarm(error.message));
  }

  // The lines are two characters a module, `##` where it is light.
  async function code() {
    drawn = true;
    const text = await ask("qr").then((answer) => answer.text()).catch((error) => { drawn = false; throw error; });
    const rows = text.split("\n").filter((line) => /^(##|  )+$/.test(line) && line.length > 40);
    const side = rows.length;
    let path = "";
    rows.forEach((row, y) => {
      for (let x = 0; x < row.length / 2; x++) if (row[2 * x] === " ") path += `M${x} ${y}h1v1h-1z`;
    });
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
    svg.setAttribute("shape-rendering", "crispEdges");
    const shape = document.createElementNS(svg.namespaceURI, "path");
    shape.setAttribute("d", path);
    svg.append(shape);
    by("code").replaceChildren(svg);
    by("setup").textContent = (/[0-9]{3}-[0-9]{2}-[0-9]{3}/.exec(text) || [""])[0];
    pairing();
  }

  // ------------------------------------------------------------ chart

  function draw() {
    const canvas = by("chart");
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const colours = getComputedStyle(document.documentElement);
    const colour = (name) => colours.getPropertyValue(`--${name}`).trim();
    const c = canvas.getContext("2d");
    c.scale(scale, scale);
    c.font = "12px system-ui, sans-serif";
    const [left, right, top, bottom] = [30, 8, 8, 20];
    const step = (width - left - right) / (KEPT - 1);
    const x = (n) => width - right - (samples.length - 1 - n) * step;
    const most = Math.max(2, ...samples.map((s) => (s.threshold ? s.level / s.threshold : 0))) * 1.08;
    const y = (part) => height - bottom - Math.max(0, Math.min(1, part)) * (height - top - bottom);

    c.lineWidth = 1;
    c.strokeStyle = colour("grid");
    c.fillStyle = colour("dim");
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (let mark = 0; mark <= most; mark += most > 6 ? 2 : 1) {
      c.beginPath();
      c.moveTo(left, y(mark / most));
      c.lineTo(width - right, y(mark / most));
      c.stroke();
      c.fillText(mark, left - 8, y(mark / most));
    }
    c.textBaseline = "alphabetic";
    c.textAlign = "center";
    for (let ago = 30; ago < KEPT; ago += 30) c.fillText(`−${ago} s`, width - right - ago * step, height - 5);
    c.textAlign = "right";
    c.fillText("now", width - right, height - 5);

    c.fillStyle = colour("on");
    for (let n = 0, from = 0; n <= samples.length; n++) {
      const on = n < samples.length && samples[n].on;
      if (on && !(n && samples[n - 1].on)) from = n;
      if (!on && n && samples[n - 1].on) c.fillRect(x(from) - step / 2, top, (n - from) * step, height - top - bottom);
    }

    const line = (name, thick, dash, part) => {
      c.beginPath();
      samples.forEach((s, n) => c.lineTo(x(n), y(part(s))));
      c.strokeStyle = colour(name);
      c.lineWidth = thick;
      c.setLineDash(dash);
      c.lineJoin = "round";
      c.stroke();
      c.setLineDash([]);
    };
    // In octaves, around the middle of what is shown: its changes count, not its size.
    const middle = samples.reduce((sum, s) => sum + s.baseline, 0) / (samples.length || 1);
    line("blue", 1.5, [], (s) => .5 + (s.baseline - middle) / 4);
    c.beginPath();
    c.moveTo(left, y(1 / most));
    c.lineTo(width - right, y(1 / most));
    c.strokeStyle = colour("red");
    c.setLineDash([6, 5]);
    c.lineWidth = 1.5;
    c.stroke();
    c.setLineDash([]);
    line("accent", 2.5, [], (s) => (s.threshold ? s.level / s.threshold / most : 0));
    const last = samples[samples.length - 1];
    if (last) {
      c.beginPath();
      c.arc(x(samples.length - 1), y(last.threshold ? last.level / last.threshold / most : 0), 4, 0, 7);
      c.fillStyle = colour("accent");
      c.fill();
    }
  }

  // ------------------------------------------------------------ events and picture

  const EVENTS = {
    ready: "Started", motion_on: "Motion", motion_off: "Motion over", ring: "Doorbell", source_running: "Picture is there",
    source_lost: "Picture lost", source_resync: "Picture taken up again", store_failed: "State could not be stored",
    missed: "Older ones",
  };

  async function events() {
    const told = (await (await ask("events")).text()).split("\n");
    const lines = told.filter((line) => line && !line.includes('"fragment"')).slice(-30).reverse();
    by("events").replaceChildren(...lines.map((line) => {
      const { event, at_s: at, cause, count } = JSON.parse(line);
      const [what, when, row] = [document.createElement("span"), document.createElement("span"), document.createElement("li")];
      what.textContent = (EVENTS[event] || String(event).replaceAll("_", " ")) + (cause ? ` (${cause})` : "");
      when.textContent = at === undefined ? count : `${span(Math.max(0, Math.round(status.uptime_s - at)))} ago`;
      row.append(what, when);
      return row;
    }));
  }

  async function picture() {
    const url = URL.createObjectURL(await (await ask("picture")).blob());
    const old = by("picture").src;
    by("picture").src = url;
    if (old) URL.revokeObjectURL(old);
  }

  // ------------------------------------------------------------ what a person does

  document.querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const body = JSON.stringify({ do: button.dataset.do });
      await ask("", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      await events();
    } catch (error) {
      alarm(error.message);
      await new Promise((over) => setTimeout(over, 3000));
    }
    button.disabled = false;
  }));
  by("reveal").addEventListener("click", () => { revealed = true; pairing(); });
  window.addEventListener("resize", draw);

  // ------------------------------------------------------------ the clock

  // One question at a time: a camera that is slow is asked less often, one that nobody looks at not at all.
  async function tick(n) {
    if (!document.hidden) {
      try {
        const before = status;
        status = await (await ask("status")).json();
        // A daemon that has begun anew may have been reset and have another code.
        if (before && status.uptime_s < before.uptime_s) drawn = false;
        show();
        if (n % 10 === 0) picture().catch(() => {});
        if (n % 10 === 5 || n === 0) await events();
      } catch (error) {
        alarm(`No word from the camera: ${error.message}`);
      }
    }
    setTimeout(tick, 1000, n + 1);
  }
  tick(0);
})();
