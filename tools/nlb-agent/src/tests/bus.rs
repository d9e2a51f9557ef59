// SPDX-License-Identifier: MIT OR Apache-2.0

//! The watch over units, with a real bus and a systemd that says what it is told to.

use super::{path, systemd::state};
use crate::systemd::{Sight, UnitState, Watch};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, Mutex,
    },
    time::Duration,
};
use tokio::sync::mpsc;
use zbus::{
    zvariant::{self, ObjectPath, OwnedObjectPath},
    Connection,
};

/// A bus, and who it is.
struct Bus {
    address: String,
    daemon: Child,
}

impl Bus {
    /// With its socket at a path that does not change.
    fn new(name: &str) -> Self {
        let folder = path().with_file_name(name);
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\n\
             <type>session</type><auth>EXTERNAL</auth><listen>unix:path={0}/bus</listen>\n\
             <policy context=\"default\"><allow own=\"*\"/><allow eavesdrop=\"true\"/>\
             <allow send_destination=\"*\" eavesdrop=\"true\"/></policy>\n</busconfig>\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address"])
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need dbus-daemon: install the package of that name");
        let mut line = String::new();
        let stdout = daemon.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:path="), "{line}");
        let address = format!("unix:path={}/bus", folder.display());
        Self { address, daemon }
    }

    async fn connect(&self) -> Connection {
        let builder = zbus::connection::Builder::address(self.address.as_str()).unwrap();
        builder.build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What systemd has of a unit: its own name, its state, and the number of its job.
type Described = (String, UnitState, u32);

/// A systemd.
#[derive(Clone, Default)]
struct Manager {
    units: Arc<Mutex<BTreeMap<String, Described>>>,
    subscribed: Arc<AtomicUsize>,
    looks: Arc<AtomicUsize>,
}

type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {
        self.subscribed.fetch_add(1, Ordering::SeqCst);
    }

    fn list_units_by_names(&self, names: Vec<String>) -> Vec<Listed> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let units = self.units.lock().unwrap();
        let listed = |name: String| {
            let (id, state, job) = units[&name].clone();
            let none = ObjectPath::try_from("/").unwrap().into();
            let object = object(&id);
            let UnitState {
                load,
                active,
                sub,
                job: kind,
            } = state;
            let empty = String::new;
            (
                id,
                empty(),
                load,
                active,
                sub,
                empty(),
                object,
                job,
                kind,
                none,
            )
        };
        names.into_iter().map(listed).collect()
    }
}

fn object(id: &str) -> OwnedObjectPath {
    let escaped = id.replace('.', "_2e");
    let path = format!("/org/freedesktop/systemd1/unit/{escaped}");
    ObjectPath::try_from(path).unwrap().into()
}

const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const NAME: &str = "org.freedesktop.systemd1";

impl Manager {
    async fn serve(&self, bus: &Bus) -> Connection {
        let builder = zbus::connection::Builder::address(bus.address.as_str()).unwrap();
        let builder = builder.serve_at(PATH, self.clone()).unwrap();
        builder.name(NAME).unwrap().build().await.unwrap()
    }

    fn set(&self, name: &str, id: &str, state: UnitState, job: u32) {
        let described = (id.to_owned(), state, job);
        self.units
            .lock()
            .unwrap()
            .insert(name.to_owned(), described);
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

/// The signal that properties of a unit are others.
async fn changed(connection: &Connection, id: &str, active: &str, sub: &str, job: u32) {
    let none = ObjectPath::try_from("/").unwrap();
    let changed = BTreeMap::from([
        ("ActiveState", zvariant::Value::from(active)),
        ("SubState", zvariant::Value::from(sub)),
        ("Job", zvariant::Value::from((job, none))),
    ]);
    let body = ("org.freedesktop.systemd1.Unit", changed, Vec::<&str>::new());
    let interface = "org.freedesktop.DBus.Properties";
    let sent = connection.emit_signal(
        None::<&str>,
        object(id),
        interface,
        "PropertiesChanged",
        &body,
    );
    sent.await.unwrap();
}

async fn job_new(connection: &Connection, to: Option<&str>, id: &str) {
    let job = ObjectPath::try_from("/org/freedesktop/systemd1/job/1").unwrap();
    let body = (1u32, job, id);
    let sent = connection.emit_signal(to, PATH, MANAGER, "JobNew", &body);
    sent.await.unwrap();
}

fn watched(bus: &Bus, units: &[&str], blind: Duration) -> mpsc::Receiver<Sight> {
    let (sights, seen) = mpsc::channel(16);
    let watch = Watch {
        bus: Some(bus.address.clone()),
        units: units.iter().map(|unit| (*unit).to_owned()).collect(),
        generation: 3,
        blind,
        sights,
    };
    tokio::spawn(watch.run());
    seen
}

async fn next(seen: &mut mpsc::Receiver<Sight>) -> Result<Vec<(String, UnitState)>, String> {
    let sight = tokio::time::timeout(LONG, seen.recv()).await;
    let sight = sight.expect("nothing was told").unwrap();
    assert_eq!(sight.generation, 3);
    sight.units
}

async fn next_is(seen: &mut mpsc::Receiver<Sight>, states: &[&UnitState]) {
    let found = next(seen).await.unwrap();
    let found: Vec<_> = found.iter().map(|(_, state)| state).collect();
    assert_eq!(found, states);
}

const LONG: Duration = Duration::from_secs(60);

fn run<T>(test: impl std::future::Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test)
}

#[test]
fn signals_say_when_to_look() {
    run(async {
        let bus = Bus::new("signals");
        let manager = Manager::default();
        let (running, dead) = (
            state("active", "running", ""),
            state("inactive", "dead", ""),
        );
        manager.set("nginx.service", "nginx.service", running.clone(), 0);
        // The name that the file has is an alias.
        manager.set("sshd.service", "ssh.service", dead.clone(), 0);
        let systemd = manager.serve(&bus).await;
        let mut seen = watched(&bus, &["nginx.service", "sshd.service"], LONG);
        next_is(&mut seen, &[&running, &dead]).await;
        assert_eq!(manager.subscribed.load(Ordering::SeqCst), 1);
        // A job that waits for others.
        let asked = state("active", "running", "stop");
        manager.set("nginx.service", "nginx.service", asked.clone(), 7);
        job_new(&systemd, None, "nginx.service").await;
        next_is(&mut seen, &[&asked, &dead]).await;
        let failed = state("failed", "failed", "");
        manager.set("nginx.service", "nginx.service", failed.clone(), 0);
        changed(&systemd, "nginx.service", "failed", "failed", 0).await;
        next_is(&mut seen, &[&failed, &dead]).await;
        manager.set("sshd.service", "ssh.service", running.clone(), 0);
        changed(&systemd, "ssh.service", "active", "running", 0).await;
        next_is(&mut seen, &[&failed, &running]).await;

        // None of these is a reason to look: what is known, other units, and what others say than systemd.
        let looks = manager.looks();
        let other = bus.connect().await;
        let names = zbus::fdo::DBusProxy::new(&other).await.unwrap();
        for name in names.list_names().await.unwrap() {
            job_new(&other, Some(name.as_str()), "nginx.service").await;
        }
        job_new(&other, None, "nginx.service").await;
        changed(&other, "nginx.service", "active", "running", 0).await;
        job_new(&systemd, None, "other.service").await;
        changed(&systemd, "other.service", "active", "running", 0).await;
        changed(&systemd, "ssh.service", "active", "running", 0).await;
        // They have come when what is sent behind them has; and if one was a reason, there was a look before these.
        for (job, state) in [(9, &running), (0, &failed)] {
            manager.set("nginx.service", "nginx.service", state.clone(), job);
            changed(&systemd, "nginx.service", &state.active, &state.sub, job).await;
            next_is(&mut seen, &[state, &running]).await;
        }
        // One look does for many signals: another one may be about to be.
        for _ in 0..50 {
            names.list_names().await.unwrap();
        }
        assert_eq!(manager.looks(), looks + 2);
        assert!(seen.try_recv().is_err());
    });
}

/// systemd leaves the bus when it executes itself anew, and the bus may be started anew. Nothing is concluded from it.
#[test]
fn bus_and_systemd_may_go_and_come() {
    run(async {
        let mut bus = Bus::new("comes");
        let manager = Manager::default();
        let (running, failed) = (
            state("active", "running", ""),
            state("failed", "failed", ""),
        );
        manager.set("nginx.service", "nginx.service", running.clone(), 0);
        let systemd = manager.serve(&bus).await;
        let mut seen = watched(&bus, &["nginx.service"], LONG);
        next_is(&mut seen, &[&running]).await;
        systemd.close().await.unwrap();
        // There is no signal of this.
        manager.set("nginx.service", "nginx.service", failed.clone(), 0);
        let systemd = manager.serve(&bus).await;
        next_is(&mut seen, &[&failed]).await;
        assert_eq!(manager.subscribed.load(Ordering::SeqCst), 2);
        drop(bus);
        drop(systemd);
        bus = Bus::new("comes");
        manager.set("nginx.service", "nginx.service", running.clone(), 0);
        let systemd = manager.serve(&bus).await;
        next_is(&mut seen, &[&running]).await;
        manager.set("nginx.service", "nginx.service", failed.clone(), 0);
        changed(&systemd, "nginx.service", "failed", "failed", 0).await;
        next_is(&mut seen, &[&failed]).await;
    });
}

/// After a while nothing is known any more, which is told once; and everything is told when it is known again.
#[test]
fn after_a_while_nothing_is_known() {
    run(async {
        let bus = Bus::new("away");
        let manager = Manager::default();
        let running = state("active", "running", "");
        manager.set("nginx.service", "nginx.service", running.clone(), 0);
        let mut seen = watched(&bus, &["nginx.service"], Duration::ZERO);
        // There is a bus, and nobody is systemd.
        next(&mut seen).await.unwrap_err();
        let systemd = manager.serve(&bus).await;
        next_is(&mut seen, &[&running]).await;
        systemd.close().await.unwrap();
        next(&mut seen).await.unwrap_err();
        let _systemd = manager.serve(&bus).await;
        next_is(&mut seen, &[&running]).await;
    });
}
