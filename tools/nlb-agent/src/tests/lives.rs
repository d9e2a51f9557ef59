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
fn the_state_is_written_wholly() {
    let directory = path().with_file_name("state");
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("state.json");
    let _ = std::fs::remove_file(&file);
    assert_eq!(Saved::load(&file).unwrap(), Saved::default());
    let saved = Saved {
        epoch: 3,
        ..Saved::default()
    };
    saved.save(&file).unwrap();
    assert_eq!(Saved::load(&file).unwrap(), saved);
    std::fs::write(&file, "{").unwrap();
    let error = Saved::load(&file).unwrap_err().to_string();
    assert!(error.contains("remove the file"), "{error}");
    assert!(saved.save(Path::new("/none/at/all")).is_err());
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
