//! The page of a run in a real browser: Chromium without a screen, driven by ChromeDriver.
//!
//! `cargo test --features ndarray --test it -- --ignored browser::` runs it; Debian has both in
//! `chromium` and `chromium-driver`. With `BURN_EMA_SHOTS=DIRECTORY` it leaves what it saw there.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use burn_ema_lab::report::Page;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::report::{HOSTILE, generated, scores};

/// A browser, ended when dropped.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: TempDir,
}

impl Browser {
    fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver: apt-get install chromium chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        // Nobody reads what else it says, so that it must not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser =
            Self { driver, port: port.expect("a port"), session: String::new(), profile };
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ];
        let mut flags: Vec<_> = flags.map(str::to_owned).into();
        flags.push(format!("--user-data-dir={}", browser.profile.path().display()));
        let answer = browser.ask(
            "POST",
            "/session",
            &json!({ "capabilities": { "alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": { "args": flags },
                "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            } } }),
        );
        browser.session = format!("/session/{}", answer["sessionId"].as_str().unwrap());
        // What the browser's own first page asks for is no concern of ours.
        browser.post("/url", &json!({ "url": "about:blank" }));
        browser.requests();
        browser
    }

    /// A request to the driver, and the value of its answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        // The driver keeps the connection, so that the length says where the answer ends.
        let mut reader = BufReader::new(stream);
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).unwrap();
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{path}: {value}");
        value
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    fn open(&self, file: &Path) {
        self.post("/url", &json!({ "url": format!("file://{}", file.display()) }));
    }

    /// What a script in the page returns.
    fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn command(&self, name: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// What the page wrote to the console since it was last asked.
    fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// What was asked for over any protocol since it was last asked.
    fn requests(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "performance" }));
        let entries = entries.as_array().unwrap().iter().filter_map(|entry| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &event["message"];
            let sent = message["method"] == "Network.requestWillBeSent";
            let url = message["params"]["request"]["url"].as_str()?.to_owned();
            sent.then_some(url)
        });
        entries.collect()
    }

    /// Shows the page at a width, in light or dark, to a screen or a printer.
    fn show(&self, width: u32, scheme: &str, media: &str) {
        let metrics =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.command("Emulation.setEmulatedMedia", json!({ "media": media, "features": features }));
    }

    /// Keeps the whole page as a picture, where someone asked for it.
    fn shoot(&self, name: &str) {
        let Some(directory) = std::env::var_os("BURN_EMA_SHOTS") else { return };
        let picture = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.command("Page.captureScreenshot", picture);
        let bytes = decode(shot["data"].as_str().unwrap());
        std::fs::write(Path::new(&directory).join(name).with_extension("png"), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", &self.session, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The bytes of a text in base 64.
fn decode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let digits: Vec<_> = digits.collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        [bits >> 16, bits >> 8, bits].map(|byte| byte as u8).into_iter().take(four.len() - 1)
    });
    bytes.collect()
}

/// What a page of 200 epochs and 4 averages may weigh and take.
const MAX_BYTES: usize = 1_500_000;
const MAX_MILLISECONDS: f64 = 1000.0;

#[test]
#[ignore = "needs chromium and chromium-driver"]
fn a_page_is_small_loads_nothing_and_shows_the_scores() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let run = generated(&path, 200, 4, false);
    let page = Page::of(&[run]).unwrap();
    assert!(page.html().len() <= MAX_BYTES, "{} bytes", page.html().len());
    let file = path.join("report.html");
    page.write(&file).unwrap();

    let browser = Browser::start();
    browser.open(&file);
    let took = browser.run(
        "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime",
    );
    let took = took.as_f64().unwrap();
    println!("{} bytes, opened in {took:.0} ms", page.html().len());
    assert!(took > 0.0 && took < MAX_MILLISECONDS, "{took} ms");

    // What a reader sees is what the run wrote, to the last digit and as rounded.
    let shown = browser.run(
        "return [...document.querySelectorAll('data')].map(e => [e.dataset.from, e.value, \
         e.innerText, e.getClientRects().length])",
    );
    let shown = shown.as_array().unwrap().iter().map(|cell| {
        let text = |index: usize| cell[index].as_str().unwrap();
        let value: f64 = text(1).parse().unwrap();
        let rounded = match text(2).strip_suffix(" %") {
            Some(percent) => (percent.parse::<f64>().unwrap() / 100.0, 5.001e-5),
            None => (text(2).parse::<f64>().unwrap(), 5.001e-7),
        };
        assert!((rounded.0 - value).abs() < rounded.1, "{cell}");
        assert_eq!(cell[3], 1, "{cell} is not seen");
        (text(0).to_owned(), value)
    });
    assert_eq!(shown.collect::<BTreeMap<_, _>>(), scores(&path));

    // Every picture has a size, on a wide page, on a phone, in the dark, on paper.
    let views = [
        ("wide", 1280, "light", "screen"),
        ("narrow", 390, "light", "screen"),
        ("dark", 1280, "dark", "screen"),
        ("narrow-dark", 390, "dark", "screen"),
        ("paper", 794, "light", "print"),
    ];
    for (name, width, scheme, media) in views {
        browser.show(width, scheme, media);
        let seen = browser.run(
            "const boxes = [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect());\
             const words = [...document.querySelectorAll('svg text')].map(e => [e, e.getBoundingClientRect()]);\
             const out = words.filter(([e, b]) => { const s = e.ownerSVGElement.getBoundingClientRect();\
               return b.left < s.left - 1 || b.right > s.right + 1 || b.top < s.top - 1 || b.bottom > s.bottom + 1; });\
             return { pictures: boxes.length, empty: boxes.filter(b => b.width < 200 || b.height < 100).length,\
               wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,\
               out: out.map(([e]) => e.textContent), smallest: Math.min(...words.map(([, b]) => b.height)),\
               ground: getComputedStyle(document.body).backgroundColor,\
               picture: getComputedStyle(document.querySelector('svg rect')).fill,\
               ink: getComputedStyle(document.body).color }",
        );
        assert_eq!(seen["pictures"], 14, "{name}: {seen}");
        assert_eq!(seen["empty"], 0, "{name}: {seen}");
        assert_eq!(seen["wider"], 0, "{name}: {seen}");
        assert_eq!(seen["out"], json!([]), "{name}: words beyond their picture");
        assert!(seen["smallest"].as_f64().unwrap() >= 9.0, "{name}: {seen}");
        let (ground, ink) = match scheme {
            "dark" => ("rgb(13, 17, 23)", "rgb(230, 237, 243)"),
            _ => ("rgb(254, 254, 254)", "rgb(31, 35, 40)"),
        };
        assert_eq!(
            (&seen["ground"], &seen["picture"], &seen["ink"]),
            (&json!(ground), &json!(ground), &json!(ink)),
            "{name}"
        );
        browser.shoot(name);
    }
    assert_eq!(browser.console(), [""; 0]);
    let asked: Vec<_> =
        browser.requests().into_iter().filter(|url| !url.starts_with("data:")).collect();
    assert_eq!(asked, [format!("file://{}", file.display())]);

    // A picture of its own, as a reader opens it.
    browser.show(800, "dark", "screen");
    browser.open(&path.join("report/loss.svg"));
    let fill = browser.run("return getComputedStyle(document.querySelector('rect')).fill");
    assert_eq!(fill, "rgb(13, 17, 23)");
    browser.shoot("loss-alone");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromium-driver"]
fn what_a_user_wrote_is_text() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["one", "two <i>"].map(|name| directory.path().join(name));
    let runs = paths.each_ref().map(|path| generated(path, 5, 4, true));
    let file = directory.path().join("page.html");
    Page::of(&runs).unwrap().write(&file).unwrap();
    let browser = Browser::start();
    browser.open(&file);
    // An alert would stand in the way of this, and a script would run before it.
    let seen = browser.run(
        "return { scripts: document.querySelectorAll('script, img, iframe, object, embed').length,\
           handlers: [...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length,\
           styles: document.querySelectorAll('style').length, heading: document.querySelector('h3').innerText,\
           text: document.body.textContent, shown: document.querySelectorAll('h2').length,\
           wider: document.documentElement.scrollWidth - document.documentElement.clientWidth }",
    );
    assert_eq!(
        (&seen["scripts"], &seen["handlers"], &seen["styles"]),
        (&json!(0), &json!(0), &json!(1))
    );
    assert_eq!((&seen["shown"], &seen["wider"]), (&json!(8), &json!(0)));
    assert_eq!(seen["heading"], paths[0].display().to_string());
    let text = seen["text"].as_str().unwrap();
    assert!(HOSTILE[..4].iter().all(|hostile| text.contains(hostile)), "{text}");
    assert!(text.contains("a\u{fffd}b"), "{text}");
    browser.shoot("hostile");
    browser.show(390, "light", "screen");
    let wider = browser
        .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wider, 0);
    browser.shoot("hostile-narrow");
    assert_eq!(browser.console(), [""; 0]);
    let asked: Vec<_> =
        browser.requests().into_iter().filter(|url| !url.starts_with("data:")).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");

    // The check can fail: what is not escaped, is found.
    let script = "<p>x</p><script>console.error('ran')</script><img src=\"x.png\">";
    let html =
        std::fs::read_to_string(&file).unwrap().replacen("<main>", &format!("<main>{script}"), 1);
    std::fs::write(&file, html).unwrap();
    browser.open(&file);
    assert_eq!(browser.run("return document.querySelectorAll('script').length"), 1);
    assert!(browser.console().iter().any(|line| line.contains("Content Security Policy")));
}
