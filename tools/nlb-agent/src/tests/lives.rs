// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is kept over restarts, boots and new configurations.

use super::*;
use crate::{host::OF_USER_MAX, load::Measured};
use nlb_daemon::life;

#[test]
fn a_restart_loses_nothing() {
    let mut scene = Scene::new(&Saved::default());
    scene.say(USER, shop(60));
    scene.say(
        USER,
        json!({"command": "health", "app": "shop", "health": "failing"}),
    );
    scene.say(ROOT, json!({"command": "drain", "app": "plain"}));
    let mut held = shop(1);
    held["app"] = "held".into();
    held["detail"] = "".into();
    held["hold"] = true.into();
    scene.say(USER, held);
    let saved = scene.host.saved(5);
    assert!(!saved.apps.contains_key("held"));
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
    let mut scene = Scene::new(&saved);
    assert_eq!(scene.host.saved(5), saved);
    assert_eq!(scene.app("shop")["health"], "failing");
    // Somebody may not have heard of it.
    let plain = scene.app("plain");
    assert_eq!(
        (&plain["target"], &plain["current"]),
        (&json!("draining"), &json!("active"))
    );
    scene.say(USER, json!({"command": "undo", "app": "shop"}));
}

#[test]
fn a_boot_ends_what_was_reported() {
    let mut scene = Scene::new(&Saved::default().in_boot("one"));
    scene.say(USER, shop(60));
    scene.say(
        ROOT,
        json!({"command": "health", "app": "plain", "health": "failing"}),
    );
    scene.say(ROOT, json!({"command": "drain", "app": "plain"}));
    let saved = scene.host.saved(5);
    assert_eq!(saved.clone().in_boot("one"), saved);
    // It is registered still, and shall be draining still.
    let mut scene = Scene::new(&saved.in_boot("two"));
    let app = scene.app("shop");
    assert_eq!(
        (&app["registered"], &app["health"]),
        (&json!(true), &json!("unknown"))
    );
    let app = scene.app("plain");
    assert_eq!(
        (&app["target"], &app["health"]),
        (&json!("draining"), &json!("unknown"))
    );
    assert_eq!(scene.host.saved(5).boot, "two");
    assert_eq!(life::boot().unwrap(), life::boot().unwrap());
    assert!(!life::boot().unwrap().is_empty());
}

#[test]
fn a_check_that_changes_changes_no_health() {
    let mut scene = Scene::new(&Saved::default());
    let known = |scene: &Scene| -> Vec<_> {
        let checks = scene.host.checks();
        checks
            .map(|(app, index, _, health)| (app.to_owned(), index, health))
            .collect()
    };
    let of_web = |index, health| ("web".to_owned(), index, health);
    scene.found(0, Health::Healthy);
    scene.found(1, Health::Healthy);
    let text = GOOD.replace("path = \"/\"", "path = \"/ready\"");
    scene.host.reload(scene.now, check(&text).unwrap());
    assert_eq!(scene.app("web")["health"], "healthy");
    assert_eq!(
        known(&scene),
        [of_web(0, Health::Healthy), of_web(1, Health::Healthy)]
    );
    // Those that are the same keep what they have found themselves.
    scene.found(0, Health::Failing);
    let text = text.replace("kind = \"tcp\"", "kind = \"tcp\"\nfall = 3");
    scene.host.reload(scene.now, check(&text).unwrap());
    let web = scene.app("web");
    assert_eq!(
        (&web["health"], &web["why"]),
        (&json!("failing"), &json!("it is away"))
    );
    assert_eq!(
        known(&scene),
        [of_web(0, Health::Failing), of_web(1, Health::Failing)]
    );
    scene.found(0, Health::Healthy);
    scene.found(1, Health::Healthy);
    assert_eq!(scene.app("web")["health"], "healthy");
    // The first check of an application that has reported before.
    scene.say(
        ROOT,
        json!({"command": "health", "app": "plain", "health": "healthy"}),
    );
    let more = text + "[[app.check]]\nkind = \"tcp\"\naddress = \"10.0.2.2:1\"\n";
    scene.host.reload(scene.now, check(&more).unwrap());
    assert_eq!(scene.app("plain")["health"], "healthy");
    // A new life has to look; until it has, applications are what they were.
    let saved = scene.host.saved(1);
    let mut scene = Scene::of(&more, &saved);
    assert!(known(&scene)
        .iter()
        .all(|(_, _, health)| *health == Health::Unknown));
    assert!(!scene.host.is_known());
    assert_eq!(scene.app("web")["health"], "healthy");
    assert_eq!(scene.host.saved(1), saved);
    scene.found(0, Health::Failing);
    assert_eq!(scene.app("web")["why"], "it is away");
    let mut scene = Scene::of(&more, &scene.host.saved(1));
    let web = scene.app("web");
    assert_eq!(
        (&web["health"], &web["why"]),
        (&json!("failing"), &json!("it was when the agent ended"))
    );
    // Not if it is something else, or if the machine was started since.
    let other = more.replace("192.0.2.10:80/tcp", "192.0.2.10:81/tcp");
    let mut scene = Scene::of(&other, &saved);
    assert_eq!(scene.app("web")["health"], "unknown");
    let mut scene = Scene::of(&more, &saved.in_boot("another"));
    assert_eq!(scene.app("web")["health"], "unknown");
}

/// Programs that hold a connection come and go, and what an operator wants stays.
#[test]
fn who_shall_be_draining_is_so_when_it_is_back() {
    let mut scene = Scene::new(&Saved::default());
    let mut held = shop(1);
    held["hold"] = true.into();
    let drain = json!({"command": "drain", "app": "shop"});
    let undo = json!({"command": "undo", "app": "shop"});
    scene.say(USER, held.clone());
    scene.say(ROOT, drain.clone());
    // The program ends, and comes again.
    scene.host.closed(scene.now, USER);
    assert!(scene.app("shop")["error"].is_string());
    assert_eq!(scene.say(USER, held.clone())["target"], "draining");
    // So does the agent, twice.
    for _ in 0..2 {
        scene = Scene::new(&scene.host.saved(1));
        assert!(scene.app("shop")["error"].is_string());
    }
    assert_eq!(scene.say(USER, held.clone())["target"], "draining");
    assert_eq!(scene.say(ROOT, undo.clone())["target"], "active");
    scene.host.closed(scene.now, USER);
    assert_eq!(scene.say(USER, held.clone())["target"], "active");
    // It may be undone while the program is away, by those who may.
    scene.say(ROOT, drain.clone());
    scene.host.closed(scene.now, USER);
    scene.refuses(OTHER, undo.clone(), "there is no application shop");
    assert_eq!(scene.say(USER, undo.clone()), json!({"app": "shop"}));
    scene.refuses(USER, undo, "there is no application shop");
    assert_eq!(scene.say(USER, held.clone())["target"], "active");
    // One that says itself that it ends has ended.
    scene.say(ROOT, drain.clone());
    scene.say(USER, json!({"command": "unregister", "app": "shop"}));
    assert_eq!(scene.say(USER, held.clone())["target"], "active");
    // It is nothing to others who take the name, and their number has a bound.
    scene.say(ROOT, drain);
    scene.host.closed(scene.now, USER);
    assert_eq!(scene.say(ROOT, shop(1))["target"], "active");
    scene.say(ROOT, json!({"command": "unregister", "app": "shop"}));
    for number in 0..OF_USER_MAX {
        let name = format!("a{number}");
        held["app"] = name.clone().into();
        scene.say(USER, held.clone());
        scene.say(USER, json!({"command": "drain", "app": name}));
        scene.host.closed(scene.now, USER);
    }
    assert_eq!(scene.host.saved(1).apps.len(), 2 + OF_USER_MAX);
}

/// Applications report again and again what is known already.
#[test]
fn what_is_the_same_is_not_written() {
    let mut scene = Scene::new(&Saved::default());
    let failing = json!({"command": "health", "app": "plain", "health": "failing"});
    scene.say(ROOT, failing.clone());
    assert!(std::mem::take(&mut scene.host.is_dirty));
    scene.say(ROOT, failing);
    scene.say(ROOT, json!({"command": "load", "app": "plain", "load": 3}));
    assert!(!scene.host.is_dirty);
    // Load changes all the time: it is written now and then.
    scene.now += Duration::from_secs(15);
    scene.say(ROOT, json!({"command": "load", "app": "plain", "load": 4}));
    assert!(std::mem::take(&mut scene.host.is_dirty));
    scene.say(ROOT, json!({"command": "load", "app": "plain", "load": 5}));
    assert!(!scene.host.is_dirty);
}

/// What programs have told is not forgotten because a file is read again.
#[test]
fn capacity_holds_until_the_file_has_another() {
    let mut scene = Scene::new(&Saved::default());
    let capacity = |number: u8| json!({"command": "capacity", "app": "plain", "capacity": number});
    assert_eq!(scene.app("plain")["capacity"], 7);
    scene.say(ROOT, capacity(30));
    scene.host.reload(scene.now, check(GOOD).unwrap());
    assert_eq!(scene.app("plain")["capacity"], 30);
    // Nor over a restart, and a reading after it.
    let mut scene = Scene::new(&scene.host.saved(1).in_boot(""));
    assert_eq!(scene.app("plain")["capacity"], 30);
    scene.host.reload(scene.now, check(GOOD).unwrap());
    assert_eq!(scene.app("plain")["capacity"], 30);
    let saved = scene.host.saved(1);
    // Whoever changes the file knows better, whether the agent runs or not.
    let other = GOOD.replace("capacity = 7", "capacity = 8");
    scene.host.reload(scene.now, check(&other).unwrap());
    assert_eq!(scene.app("plain")["capacity"], 8);
    assert_eq!(Scene::of(&other, &saved).app("plain")["capacity"], 8);
    // What was told before is over then.
    scene.host.reload(scene.now, check(GOOD).unwrap());
    assert_eq!(scene.app("plain")["capacity"], 7);
    // Programs of another boot have ended; and no file makes it more than there can be.
    let boot = saved.clone().in_boot("another");
    assert_eq!(Scene::new(&boot).app("plain")["capacity"], 7);
    let mut broken = saved;
    let of_plain = broken.apps.get_mut("plain").unwrap();
    of_plain.capacity.as_mut().unwrap().told = 200;
    assert_eq!(Scene::new(&broken).app("plain")["capacity"], 99);
}

/// Who is busy does not look idle because the agent was started anew.
#[test]
fn load_holds_until_there_is_another() {
    let measured = GOOD.replace(
        "capacity = 7",
        "load = { pressure = \"/proc/pressure/cpu\" }",
    );
    let mut scene = Scene::of(&measured, &Saved::default());
    let load = |name, percent: u8| json!({"command": "load", "app": name, "load": percent});
    let plain = |scene: &mut Scene, load| {
        let measured = Measured {
            app: "plain".to_owned(),
            generation: scene.host.generation(),
            load,
        };
        scene.host.measured(scene.now, &measured);
        scene.app("plain")["load"].clone()
    };
    scene.say(USER, shop(60));
    scene.say(USER, load("shop", 80));
    scene.say(ROOT, load("web", 0));
    assert_eq!(plain(&mut scene, 40), 40);
    let saved = scene.host.saved(1);
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
    let mut scene = Scene::of(&measured, &saved);
    assert_eq!(scene.host.saved(1), saved);
    for (name, load) in [("shop", 80), ("plain", 40), ("web", 0)] {
        assert_eq!(scene.app(name)["load"], load, "{name}");
    }
    // What comes next counts at once.
    assert_eq!(plain(&mut scene, 41), 41);
    assert_eq!(scene.say(USER, load("shop", 3))["load"], 3);
    // It was measured, and is not any more; what was reported is as if nothing had been measured.
    let mut scene = Scene::of(GOOD, &saved);
    assert_eq!(scene.app("plain")["load"], 0);
    let mut scene = Scene::of(&measured, &Saved::default());
    scene.say(ROOT, load("plain", 90));
    let saved = scene.host.saved(1);
    let mut scene = Scene::of(&measured, &saved);
    assert_eq!(plain(&mut scene, 10), 90);
    assert_eq!(Scene::of(GOOD, &saved).app("plain")["load"], 90);
    // After a boot nobody is busy, and no file makes it more than there can be.
    let boot = saved.clone().in_boot("another");
    assert_eq!(Scene::new(&boot).app("plain")["load"], 0);
    let mut broken = saved;
    let of_plain = broken.apps.get_mut("plain").unwrap();
    of_plain.load.as_mut().unwrap().percent = 200;
    assert_eq!(Scene::new(&broken).app("plain")["load"], 100);
}
