// SPDX-License-Identifier: MIT OR Apache-2.0

//! The crate for applications with the real agent.

use nlb_app::{App, Closed, Connection, Error, Health, Registration, Request, State};
use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const LONG: Duration = Duration::from_secs(60);

/// An agent in a folder of its own.
struct Agent {
    folder: PathBuf,
    running: Option<Child>,
    /// It hears what the agent sends, and says nothing.
    _lbu: UdpSocket,
}

impl Agent {
    fn new(name: &str) -> Self {
        let name = format!("nlb-agent-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let secret = folder.join("health.key");
        fs::write(&secret, "0123456789abcdef\n").unwrap();
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        let lbu = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = format!(
            r#"
            host = 1
            lbus = ["{}"]
            addresses = ["127.0.0.1"]
            socket = "{folder}/socket"
            state = "{folder}/state.json"
            [[key]]
            id = 1
            secret_file = "health.key"
            [[app]]
            name = "web"
            vip = "192.0.2.10:81/tcp"
            "#,
            lbu.local_addr().unwrap(),
            folder = folder.display()
        );
        fs::write(folder.join("agent.toml"), config).unwrap();
        Self {
            folder,
            running: None,
            _lbu: lbu,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Until it answers.
    fn start(&mut self) -> Connection {
        let running = Command::new(env!("CARGO_BIN_EXE_nlb-agent"))
            .args(["run", "--config"])
            .arg(self.folder.join("agent.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(running.unwrap());
        for _ in 0..1000 {
            // The socket of one that was killed may still be there.
            if let Ok(connection) = Connection::open(&self.socket(), LONG) {
                return connection;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the agent does not come");
    }

    /// Until the state has this word.
    fn keeps(&self, word: &str) {
        for _ in 0..1000 {
            let state = fs::read_to_string(self.folder.join("state.json"));
            if state.is_ok_and(|state| state.contains(word)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the state does not have {word}");
    }

    fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }

    fn app(&self, registration: Registration) -> App {
        App::new(registration).at(self.socket()).with_timeout(LONG)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_there(agent: &mut Connection, app: &str) -> bool {
    let answer = agent.ask(Request::Show(Some(app))).unwrap();
    let is_there = answer.contains(r#""registered":true"#);
    assert!(is_there || answer.contains("there is no application"));
    is_there
}

#[test]
fn an_application_is_there_as_long_as_its_program() {
    let mut agent = Agent::new("held");
    let mut shop = agent.app(Registration::new("shop", "192.0.2.10:80/tcp"));
    assert!(matches!(shop.register(), Err(Error::Agent { .. })));
    let mut others = agent.start();
    let status = shop.register().unwrap();
    assert_eq!((status.health, status.capacity), (Health::Healthy, 50));
    assert_eq!(
        (status.target, status.current),
        (State::Active, State::Active)
    );
    assert!(status.is_registered);
    shop.load(80).unwrap();
    assert_eq!(shop.capacity(7).unwrap().capacity, 7);
    assert_eq!(
        shop.health(Health::Failing).unwrap().health,
        Health::Failing
    );
    let status = shop.drain(Closed::Inactive).unwrap();
    assert_eq!(status.target, State::Inactive);

    // What shall be draining is in the state as soon as that is written.
    agent.keeps("inactive");
    // Another agent is told everything by the next call, whichever that is.
    agent.kill();
    assert!(matches!(shop.load(20), Err(Error::Agent { .. })));
    let mut others_again = agent.start();
    assert!(others.ask(Request::Show(None)).is_err());
    assert!(!is_there(&mut others_again, "shop"));
    let status = shop.status().unwrap();
    assert_eq!((status.health, status.capacity), (Health::Failing, 7));
    assert_eq!(status.target, State::Inactive);
    assert_eq!(status.why.as_deref(), Some("it was reported"));
    assert_eq!(shop.undo().unwrap().target, State::Active);

    // So is one that does not know it any more.
    others_again.ask(Request::Unregister("shop")).unwrap();
    assert!(!is_there(&mut others_again, "shop"));
    shop.load(30).unwrap();
    assert!(is_there(&mut others_again, "shop"));

    drop(shop);
    for _ in 0..1000 {
        if !is_there(&mut others_again, "shop") {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the application is there without its program");
}

#[test]
fn an_application_that_stays() {
    let mut agent = Agent::new("stays");
    let mut others = agent.start();
    let registration = Registration {
        hold: false,
        physical: Some("127.0.0.1:8080".parse().unwrap()),
        detail: Some("/\"shop\"/*".to_owned()),
        ..Registration::new("shop", "192.0.2.10:80/tcp")
    };
    agent.app(registration.clone()).register().unwrap();
    assert!(is_there(&mut others, "shop"));
    agent.app(registration).unregister().unwrap();
    assert!(!is_there(&mut others, "shop"));
}

#[test]
fn the_agent_s_own_and_refusals() {
    let mut agent = Agent::new("file");
    agent.start();
    let mut web = App::of_file("web").at(agent.socket()).with_timeout(LONG);
    let status = web.register().unwrap();
    assert_eq!(status.health, Health::Unknown);
    assert!(!status.is_registered);
    web.health(Health::Healthy).unwrap();
    assert_eq!(web.capacity(3).unwrap().capacity, 3);
    agent.kill();
    agent.start();
    let status = web.status().unwrap();
    assert_eq!((status.health, status.capacity), (Health::Healthy, 3));

    for (app, why) in [
        (App::of_file("none"), "there is no application none"),
        (
            App::new(Registration::new("web", "192.0.2.10:80/tcp")),
            "is in the configuration file",
        ),
        (
            App::new(Registration::new("a b", "192.0.2.10:80/tcp")),
            "a name has 1 to 63",
        ),
        (App::new(Registration::new("shop", "nonsense")), "vip"),
    ] {
        let mut app = app.at(agent.socket()).with_timeout(LONG);
        let error = app.load(1).unwrap_err();
        let is_refused = matches!(&error, Error::Refused(text) if text.contains(why));
        assert!(is_refused, "{error:?}");
    }
}
