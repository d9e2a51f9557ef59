// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is kept over restarts, boots and new configurations.

use super::*;
use crate::state;

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
    assert_eq!(state::boot().unwrap(), state::boot().unwrap());
    assert!(!state::boot().unwrap().is_empty());
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
    // A new life has to look.
    let scene = Scene::of(&more, &scene.host.saved(1));
    assert!(known(&scene)
        .iter()
        .all(|(_, _, health)| *health == Health::Unknown));
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
}
