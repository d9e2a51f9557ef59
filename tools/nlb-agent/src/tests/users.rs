// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may do what.

use super::*;
use crate::host::OF_USER_MAX;

#[test]
fn others_may_not() {
    let mut scene = Scene::new(&Saved::default());
    assert_eq!(scene.host.admitted(), [0, 33, 1000].into());
    scene.refuses(OTHER, shop(1), "user 33 may not register");
    scene.say(USER, shop(1));
    for command in ["unregister", "drain", "undo"] {
        let request = json!({ "command": command, "app": "shop" });
        scene.refuses(OTHER, request, "not an application of user 33");
    }
    let failing = json!({"command": "health", "app": "web", "health": "failing"});
    scene.refuses(USER, failing.clone(), "not an application of user 1000");
    assert_eq!(scene.say(OTHER, failing)["health"], "failing");
    for (request, why) in [
        (json!({"command": "nothing"}), "unknown variant"),
        (
            json!({"command": "show", "app": "web", "x": 1}),
            "unknown field",
        ),
        (
            json!({"command": "load", "app": "shop", "load": 101}),
            "load is 101",
        ),
        (
            json!({"command": "load", "app": "shop", "load": 300}),
            "invalid value",
        ),
        (
            json!({"command": "capacity", "app": "shop", "capacity": 100}),
            "capacity is 100",
        ),
        (
            json!({"command": "health", "app": "shop", "health": "ill"}),
            "unknown variant",
        ),
        (
            json!({"command": "drain", "app": "none"}),
            "there is no application none",
        ),
        (
            json!({"command": "unregister", "app": "web"}),
            "in the configuration file",
        ),
        (
            json!({"command": "register", "app": "web", "vip": "192.0.2.10:81"}),
            "in the configuration file",
        ),
        (
            json!({"command": "register", "app": "again", "vip": "192.0.2.10:*/udp"}),
            "plain has these addresses",
        ),
        (
            json!({"command": "register", "app": "a b", "vip": "192.0.2.10:81"}),
            "a name has",
        ),
        (
            json!({"command": "register", "app": "a", "vip": "here"}),
            "is not a service",
        ),
    ] {
        scene.refuses(ROOT, request, why);
    }
    assert!(scene
        .host
        .request(scene.now, ROOT, "nonsense")
        .contains("error"));
}

fn register(app: &str, vip: &str, physical: &str) -> Value {
    json!({ "command": "register", "app": app, "vip": vip, "physical": physical })
}

/// A row is about an endpoint, and the worst row of an endpoint counts: whoever has one could take it from service.
#[test]
fn nobody_speaks_for_endpoints_of_others() {
    let mut scene = Scene::new(&Saved::default());
    for (request, why) in [
        (
            register("far", "192.0.2.11:80", "10.0.3.2:8080"),
            "physical 10.0.3.2 is no address of this host",
        ),
        // With another name, detail or port it is the same endpoint.
        (
            register("near", "192.0.2.10:80", "10.0.2.2:8080"),
            "web, which is not of user 1000",
        ),
        (
            register("near", "192.0.2.10:*/tcp", "10.0.2.2:8080"),
            "web, which is not of user 1000",
        ),
        (
            register("near", "192.0.2.10:53/udp", "10.0.2.2:53"),
            "plain, which is not of user 1000",
        ),
    ] {
        scene.refuses(USER, request.clone(), why);
        // Root knows what it does.
        assert_eq!(scene.say(ROOT, request.clone())["app"], request["app"]);
        scene.say(
            ROOT,
            json!({"command": "unregister", "app": request["app"]}),
        );
    }
    // What is its own it may have several rows of; and it may not move to somebody else's.
    scene.say(USER, shop(1));
    let again = scene.say(USER, register("two", "192.0.2.11:80", "10.0.2.2:8080"));
    assert_eq!(again["app"], "two");
    scene.refuses(
        USER,
        register("shop", "192.0.2.10:80", "10.0.2.2:8080"),
        "web, which is not",
    );
}

#[test]
fn nobody_takes_all_of_the_table() {
    let mut scene = Scene::new(&Saved::default());
    let of = |number: usize| {
        let port = 1000 + number;
        let vip = format!("192.0.2.11:{port}");
        register(&format!("a{number}"), &vip, &format!("10.0.2.2:{port}"))
    };
    for number in 0..OF_USER_MAX {
        assert_eq!(scene.say(USER, of(number))["health"], "healthy");
    }
    scene.refuses(USER, of(OF_USER_MAX), "may not have more");
    // Again is not more, and root may.
    assert_eq!(scene.say(USER, of(0))["health"], "healthy");
    assert_eq!(scene.say(ROOT, of(OF_USER_MAX))["health"], "healthy");
    scene.say(USER, json!({"command": "unregister", "app": "a1"}));
    assert_eq!(scene.say(USER, of(OF_USER_MAX + 1))["health"], "healthy");
}

/// Neither a restart nor a new configuration leaves what could not register now.
#[test]
fn who_may_not_any_more() {
    let mut scene = Scene::new(&Saved::default());
    scene.say(USER, shop(1));
    let saved = scene.host.saved(0);
    let text = GOOD.replace("[\"10.0.2.2\"]", "[\"10.0.2.3\"]");
    scene.host.reload(scene.now, check(&text).unwrap());
    assert!(scene.app("shop")["error"].is_string());
    let mut scene = Scene::of(&text, &saved);
    assert!(scene.app("shop")["error"].is_string());
    // The same for the user who may not register any more: nor does it get an answer.
    let text = GOOD.replace("register = [1000]", "register = [1001]");
    let mut scene = Scene::of(&text, &saved);
    assert!(scene.app("shop")["error"].is_string());
    let mut scene = Scene::new(&saved);
    assert_eq!(scene.app("shop")["app"], "shop");
    scene.host.reload(scene.now, check(&text).unwrap());
    assert!(scene.app("shop")["error"].is_string());
    assert_eq!(scene.host.admitted(), [0, 33, 1001].into());
}
