// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of applications that are units of systemd.

use super::*;
use crate::{
    metrics::{page, Looks},
    systemd::{Phase, Sight, UnitState},
};
use nlb_daemon::udp::Traffic;
use std::time::UNIX_EPOCH;

const WITH_UNIT: &str = r#"
host = 1
lbus = ["10.0.2.1:4771"]
addresses = ["10.0.2.2"]
[[key]]
id = 1
secret_file = "health.key"
[[app]]
name = "web"
vip = "192.0.2.10:80/tcp"
uid = 33
unit = "nginx.service"
"#;
const CHECK: &str = "[[app.check]]\nkind = \"tcp\"\n";

pub(super) fn state(active: &str, sub: &str, job: &str) -> UnitState {
    UnitState {
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: sub.to_owned(),
        job: job.to_owned(),
    }
}

#[test]
fn phases_are_those_of_systemd() {
    for (active, sub, job, phase) in [
        ("active", "running", "", Phase::Running),
        ("active", "running", "reload", Phase::Running),
        ("reloading", "reload", "", Phase::Running),
        ("active", "running", "stop", Phase::Stopping),
        ("active", "running", "restart", Phase::Stopping),
        ("activating", "start", "", Phase::Starting),
        ("activating", "start", "stop", Phase::Stopping),
        ("activating", "auto-restart", "", Phase::Failed),
        ("activating", "auto-restart-queued", "start", Phase::Failed),
        ("deactivating", "stop-sigterm", "", Phase::Stopping),
        ("inactive", "dead", "", Phase::Inactive),
        ("inactive", "dead", "start", Phase::Inactive),
        ("failed", "failed", "", Phase::Failed),
        ("maintenance", "", "", Phase::Failed),
        ("unheard-of", "", "", Phase::Failed),
    ] {
        assert_eq!(
            state(active, sub, job).phase(),
            phase,
            "{active} {sub} {job}"
        );
    }
    let mut none = state("inactive", "dead", "");
    none.load = "not-found".to_owned();
    assert_eq!(none.to_string(), "not-found");
    assert_eq!(
        state("active", "running", "stop").to_string(),
        "active (running), stop job"
    );
}

#[test]
fn units_have_names() {
    for name in ["nginx.service", "a@b.service", "x.scope", "web.target"] {
        let text = WITH_UNIT.replace("nginx.service", name);
        assert_eq!(check(&text).unwrap().apps[0].unit.as_deref(), Some(name));
    }
    let long = format!("{}.service", "a".repeat(250));
    for (name, what) in [
        (
            "nginx",
            "f:12: \"web\": unit is the name of a service, scope",
        ),
        ("", "unit is the name"),
        (".service", "unit is the name"),
        ("@a.service", "unit is the name"),
        ("dev-sda.device", "unit is the name"),
        ("a b.service", "unit is the name"),
        ("../a.service", "unit is the name"),
        (long.as_str(), "unit is the name"),
        (
            "a@.service",
            "name an instance, such as \\\"a@a.service\\\"",
        ),
    ] {
        let Err(mistake) = check(&WITH_UNIT.replace("nginx.service", name)) else {
            panic!("{name} is taken");
        };
        let what = what.replace("\\\"", "\"");
        assert!(mistake.to_string().contains(&what), "{name}: {mistake}");
    }
}

impl Scene {
    fn unit_is(&mut self, active: &str, sub: &str, job: &str) -> Value {
        self.unit_seen(Ok(state(active, sub, job)))
    }

    fn unit_seen(&mut self, seen: Result<UnitState, &str>) -> Value {
        let units = seen.map(|state| vec![("nginx.service".to_owned(), state)]);
        let sight = Sight {
            generation: self.host.generation(),
            units: units.map_err(str::to_owned),
        };
        self.host.seen(self.now, sight);
        self.app("web")
    }

    fn rows(&self) -> usize {
        self.host.statuses().count()
    }
}
#[track_caller]
fn is(app: &Value, health: Value, target: &str, why: Value) {
    assert_eq!(
        (&app["health"], &app["target"], &app["why"]),
        (&health, &json!(target), &why)
    );
}

/// "A row is added as each application is spun up", and deleted when it is closed down.
#[test]
fn rows_come_and_go_with_units() {
    let mut scene = Scene::of(WITH_UNIT, &Saved::default());
    assert!(!scene.host.is_known());
    let why = |what: &str| json!(format!("unit nginx.service is {what}"));
    let app = scene.unit_is("active", "running", "");
    assert!(scene.host.is_known());
    is(&app, json!("healthy"), "active", json!(null));
    // Before it has ended, nobody is sent to it any more.
    let app = scene.unit_is("active", "running", "stop");
    is(
        &app,
        json!("healthy"),
        "draining",
        why("active (running), stop job"),
    );
    // It was thought better of.
    let app = scene.unit_is("active", "running", "");
    is(&app, json!("healthy"), "active", json!(null));
    let app = scene.unit_is("deactivating", "stop-sigterm", "stop");
    is(
        &app,
        json!("healthy"),
        "draining",
        why("deactivating (stop-sigterm), stop job"),
    );
    assert_eq!(scene.rows(), 1);
    let app = scene.unit_is("inactive", "dead", "");
    is(&app, json!(null), "draining", why("inactive (dead)"));
    assert_eq!((scene.rows(), &app["id"]), (0, &json!(null)));
    scene.refuses(
        ROOT,
        json!({"command": "load", "app": "web", "load": 1}),
        "web is not in the table: unit nginx.service is inactive",
    );
    let app = scene.unit_is("activating", "start-pre", "start");
    is(
        &app,
        json!("unknown"),
        "draining",
        why("activating (start-pre), start job"),
    );
    assert_eq!(scene.rows(), 1);
    let app = scene.unit_is("active", "running", "");
    is(&app, json!("healthy"), "active", json!(null));
    // Failing is not all: with many that are failing, health does not count.
    let app = scene.unit_is("failed", "failed", "");
    is(&app, json!("failing"), "draining", why("failed (failed)"));
    assert_eq!(scene.rows(), 1);
    // What was seen of other units is nothing to this one.
    let sight = Sight {
        generation: scene.host.generation(),
        units: Ok(vec![("other.service".to_owned(), state("active", "", ""))]),
    };
    scene.host.seen(scene.now, sight);
    assert_eq!(scene.app("web")["health"], "failing");
}

#[test]
fn checks_and_reports_decide_while_the_unit_runs() {
    let mut scene = Scene::of(&(WITH_UNIT.to_owned() + CHECK), &Saved::default());
    scene.unit_is("active", "running", "");
    assert!(!scene.host.is_known());
    assert_eq!(scene.app("web")["health"], "unknown");
    scene.found(0, Health::Healthy);
    assert!(scene.host.is_known());
    assert_eq!(scene.app("web")["health"], "healthy");
    scene.found(0, Health::Failing);
    is(
        &scene.app("web"),
        json!("failing"),
        "active",
        json!("it is away"),
    );
    scene.found(0, Health::Healthy);
    let report = json!({"command": "health", "app": "web", "health": "failing"});
    scene.say(OTHER, report);
    assert_eq!(scene.app("web")["health"], "failing");
    // It was said by a program that has ended.
    scene.unit_is("inactive", "dead", "");
    let app = scene.unit_is("active", "running", "");
    is(&app, json!("healthy"), "active", json!(null));
    let load = json!({"command": "load", "app": "web", "load": 80});
    assert_eq!(scene.say(OTHER, load)["load"], 80);
    assert_eq!(scene.unit_is("failed", "failed", "")["load"], 0);
    scene.unit_is("active", "running", "");
    // The check does not know yet, or any more; and it is the unit that says why.
    scene.found(0, Health::Failing);
    let app = scene.unit_is("failed", "failed", "");
    assert_eq!(app["why"], "unit nginx.service is failed (failed)");
}

/// What an operator wants is for the next life of the program, too.
#[test]
fn what_somebody_wants_outlives_the_unit() {
    let mut scene = Scene::of(WITH_UNIT, &Saved::default());
    scene.unit_is("active", "running", "");
    scene.say(ROOT, json!({"command": "drain", "app": "web"}));
    scene.unit_is("inactive", "dead", "");
    let mut scene = Scene::of(WITH_UNIT, &scene.host.saved(1));
    assert_eq!(scene.unit_is("active", "running", "")["target"], "draining");
    scene.unit_is("inactive", "dead", "");
    scene.say(ROOT, json!({"command": "undo", "app": "web"}));
    scene.say(
        ROOT,
        json!({"command": "capacity", "app": "web", "capacity": 9}),
    );
    let app = scene.unit_is("active", "running", "");
    assert_eq!(
        (&app["target"], &app["capacity"]),
        (&json!("active"), &json!(9))
    );
    // Nor does that it shall get connections send any to a unit that stops.
    scene.unit_is("deactivating", "stop-post", "");
    let undo = json!({"command": "undo", "app": "web"});
    assert_eq!(scene.say(ROOT, undo)["target"], "draining");
    let drain = json!({"command": "drain", "app": "web", "state": "inactive"});
    assert_eq!(scene.say(ROOT, drain)["target"], "inactive");
}

/// Nobody can look: the table stays, and after a while checks and reports are all that is left.
#[test]
fn who_cannot_look_concludes_nothing() {
    let mut scene = Scene::of(WITH_UNIT, &Saved::default());
    scene.unit_is("active", "running", "");
    let saved = scene.host.saved(1);
    let app = scene.unit_seen(Err("no bus"));
    let nothing = json!("nothing is known of unit nginx.service");
    is(&app, json!("unknown"), "active", nothing.clone());
    scene.say(
        OTHER,
        json!({"command": "health", "app": "web", "health": "healthy"}),
    );
    assert_eq!(scene.app("web")["health"], "healthy");
    // What the unit was about to do when it was seen last is over, one way or the other.
    let app = scene.unit_is("active", "running", "restart");
    assert_eq!(app["target"], "draining");
    assert_eq!(scene.unit_seen(Err("no bus"))["target"], "active");
    // Nothing comes into the table, either.
    scene.unit_is("inactive", "dead", "");
    scene.unit_seen(Err("no bus"));
    assert_eq!(scene.rows(), 0);
    // Another life goes on with what the one before has seen, until it looks.
    let mut scene = Scene::of(WITH_UNIT, &saved);
    is(&scene.app("web"), json!("healthy"), "active", json!(null));
    assert!(!scene.host.is_known());
    let mut scene = Scene::of(WITH_UNIT, &saved.in_boot("another"));
    is(&scene.app("web"), json!("unknown"), "active", nothing);
}

#[test]
fn metrics_say_what_runs() {
    let mut scene = Scene::of(WITH_UNIT, &Saved::default());
    let page = |scene: &Scene| {
        let text = page(
            &scene.host,
            &Looks::default(),
            &Traffic::default(),
            UNIX_EPOCH,
        );
        let lines = text
            .lines()
            .filter(|line| line.starts_with("nlb_agent_unit"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(page(&scene), ["nlb_agent_units_unknown 1"]);
    for (active, is_running) in [("active", 1), ("failed", 0), ("inactive", 0)] {
        scene.unit_is(active, "", "");
        let labels = "app=\"web\",unit=\"nginx.service\"";
        let running = format!("nlb_agent_unit_running{{{labels}}} {is_running}");
        assert_eq!(
            page(&scene),
            [running.as_str(), "nlb_agent_units_unknown 0"]
        );
    }
    scene.unit_seen(Err("no bus"));
    assert_eq!(page(&scene), ["nlb_agent_units_unknown 1"]);
}

/// A unit is named, another one, and none any more.
#[test]
fn units_change_with_the_file() {
    let without = WITH_UNIT.replace("unit = \"nginx.service\"\n", "");
    let mut scene = Scene::of(&without, &Saved::default());
    assert!(scene.host.units().is_empty());
    scene.say(
        ROOT,
        json!({"command": "health", "app": "web", "health": "healthy"}),
    );
    let old = scene.host.generation();
    scene.host.reload(scene.now, check(WITH_UNIT).unwrap());
    assert_eq!(scene.host.units(), ["nginx.service".to_owned()].into());
    // It is as it was, until the unit was looked at.
    assert_eq!(scene.app("web")["health"], "healthy");
    // What was asked for by the file of before does not count.
    let sight = Sight {
        generation: old,
        units: Ok(vec![(
            "nginx.service".to_owned(),
            state("inactive", "dead", ""),
        )]),
    };
    scene.host.seen(scene.now, sight);
    assert_eq!(scene.rows(), 1);
    scene.unit_is("inactive", "dead", "");
    assert_eq!(scene.rows(), 0);
    // The same file again changes nothing.
    scene.host.reload(scene.now, check(WITH_UNIT).unwrap());
    assert_eq!(scene.rows(), 0);
    scene.host.reload(scene.now, check(&without).unwrap());
    assert_eq!(scene.rows(), 1);
    assert_eq!(scene.app("web")["health"], "unknown");
}
