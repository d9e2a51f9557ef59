// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use std::{
    ffi::CString,
    fs,
    io::{
        BufRead,
        BufReader,
        Write, //
    },
    os::unix::net::UnixListener,
    path::PathBuf,
    ptr,
    sync::mpsc,
    thread, //
};

const NONE: NlbAppOptions = NlbAppOptions {
    size: size_of::<NlbAppOptions>(),
    socket: ptr::null(),
    physical: ptr::null(),
    protocol: ptr::null(),
    detail: ptr::null(),
    timeout_ms: 0,
    stays: 0,
};

fn error() -> String {
    // SAFETY: The function returns a string of this library, which no other call replaces meanwhile.
    let text = unsafe { CStr::from_ptr(crate::nlb_error_text()) };
    text.to_str().unwrap().to_owned()
}

fn open(name: *const c_char, vip: *const c_char, options: &NlbAppOptions) -> (c_int, *mut NlbApp) {
    let mut app = ptr::null_mut();
    // SAFETY: All texts end with a NUL or are null, and the options say their size.
    let result = unsafe { nlb_app_open(&raw mut app, name, vip, options) };
    assert_eq!(result == 0, !app.is_null());
    (result, app)
}

/// A socket at which an agent answers with these lines, and what it was told.
fn agent(name: &str, answers: &'static [&str]) -> (PathBuf, mpsc::Receiver<String>) {
    let path = std::env::temp_dir().join(format!("libnlb-{}-{name}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        for answer in answers {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            said.send(line).unwrap();
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (path, lines)
}

#[test]
fn arguments_are_checked() {
    let (name, vip) = (c"shop".as_ptr(), c"192.0.2.10:80/tcp".as_ptr());
    let nothing = ptr::null();
    let with = |change: fn(&mut NlbAppOptions)| {
        let mut options = NONE;
        change(&mut options);
        options
    };
    for (name, vip, options, why) in [
        (nothing, vip, NONE, "no name"),
        (c"\xff".as_ptr(), vip, NONE, "the name is not UTF-8"),
        (name, c"\xff".as_ptr(), NONE, "the vip is not UTF-8"),
        (name, vip, with(|own| own.size -= 1), "no valid size"),
        (name, vip, with(|own| own.size = 0), "no valid size"),
        (name, vip, with(|own| own.stays = 2), "neither 0 nor 1"),
        (
            name,
            vip,
            with(|own| own.physical = c"10.0.2.2".as_ptr()),
            "physical is no address with a port",
        ),
        (
            name,
            nothing,
            with(|own| own.stays = 1),
            "an application of the agent's file",
        ),
        (
            name,
            nothing,
            with(|own| own.detail = c"x".as_ptr()),
            "an application of the agent's file",
        ),
    ] {
        assert_eq!(open(name, vip, &options), (-EINVAL, ptr::null_mut()));
        assert!(error().contains(why), "{} {why}", error());
    }
    // SAFETY: Null is allowed to be passed everywhere.
    let refused = unsafe {
        nlb_app_close(ptr::null_mut());
        [
            nlb_app_open(ptr::null_mut(), name, vip, ptr::null()),
            nlb_app_register(ptr::null()),
            nlb_app_health(ptr::null(), 1),
            nlb_app_load(ptr::null(), 1),
            nlb_app_capacity(ptr::null(), 1),
            nlb_app_drain(ptr::null(), 1),
            nlb_app_undo(ptr::null()),
            nlb_app_status(ptr::null(), ptr::null_mut()),
            nlb_app_unregister(ptr::null()),
        ]
    };
    assert_eq!(refused, [-EINVAL; 9]);
    let missing = with(|own| own.socket = c"/none/at/all".as_ptr());
    let (result, app) = open(name, vip, &missing);
    assert_eq!(result, 0);
    let mut status = NlbAppStatus {
        size: 0,
        health: 0,
        load: 0,
        capacity: 0,
        target: 0,
        current: 0,
    };
    // SAFETY: The application is open until the end, and the status says its size, or less.
    unsafe {
        for refused in [
            nlb_app_health(app, 3),
            nlb_app_load(app, 101),
            nlb_app_load(app, 257),
            nlb_app_capacity(app, 100),
            nlb_app_drain(app, 0),
            nlb_app_drain(app, 3),
            nlb_app_status(app, ptr::null_mut()),
            nlb_app_status(app, &raw mut status),
        ] {
            assert_eq!(refused, -EINVAL);
        }
        // No such file.
        assert_eq!(nlb_app_register(app), -2);
        assert!(error().contains("/none/at/all"));
        nlb_app_close(app);
    }
}

#[test]
fn what_is_said_and_what_comes_back() {
    const FAILING: &str = concat!(
        r#"{"app":"shop","health":"failing","load":7,"capacity":3,"target":"draining","#,
        r#""current":"inactive","registered":true}"#,
        "\n"
    );
    const REFUSAL: &str = "{\"error\":\"no room\"}\n";
    let answers = &[FAILING, FAILING, FAILING, REFUSAL, REFUSAL, "hello\n"];
    let (path, lines) = agent("said", answers);
    let socket = CString::new(path.to_str().unwrap()).unwrap();
    let options = NlbAppOptions {
        socket: socket.as_ptr(),
        physical: c"10.0.2.2:8080".as_ptr(),
        protocol: c"http".as_ptr(),
        detail: c"/*".as_ptr(),
        timeout_ms: 60_000,
        stays: 1,
        ..NONE
    };
    let (_, app) = open(c"shop".as_ptr(), c"192.0.2.10:80/tcp".as_ptr(), &options);
    #[repr(C)]
    struct Later {
        known: NlbAppStatus,
        later: u64,
    }
    let mut status = Later {
        known: NlbAppStatus {
            size: size_of::<Later>(),
            health: 9,
            load: 9,
            capacity: 9,
            target: 9,
            current: 9,
        },
        later: 9,
    };
    // SAFETY: The application is open until the end, and the status says its size.
    unsafe {
        assert_eq!(nlb_app_health(app, 2), 0);
        assert_eq!(nlb_app_status(app, (&raw mut status).cast()), 0);
        assert_eq!(error(), "");
        assert_eq!(nlb_app_register(app), -EREMOTEIO);
        assert_eq!(error(), "no room");
        assert_eq!(nlb_app_undo(app), -EBADMSG);
        nlb_app_close(app);
    }
    let known = NlbAppStatus {
        size: size_of::<Later>(),
        health: 2,
        load: 7,
        capacity: 3,
        target: 1,
        current: 2,
    };
    assert_eq!((status.known, status.later), (known, 0));
    let lines: Vec<_> = lines.into_iter().collect();
    let registration = r#""physical":"10.0.2.2:8080","protocol":"http","detail":"/*","health":"failing","hold":false}"#;
    assert!(lines[0].trim_end().ends_with(registration), "{}", lines[0]);
    assert!(lines[1].contains(r#""health":"failing""#));
    fs::remove_file(path).unwrap();
}

/// One waits for the other.
#[test]
fn threads_share_an_application() {
    let options = NlbAppOptions {
        socket: c"/none/at/all".as_ptr(),
        ..NONE
    };
    let (_, app) = open(c"shop".as_ptr(), c"192.0.2.10:80/tcp".as_ptr(), &options);
    // SAFETY: It is closed when all threads have ended.
    let app = unsafe { &*app };
    thread::scope(|scope| {
        for _ in 0..8 {
            // SAFETY: The same.
            scope.spawn(|| assert_eq!(unsafe { nlb_app_load(app, 1) }, -2));
        }
    });
    // SAFETY: No thread has it any more.
    unsafe { nlb_app_close(ptr::from_ref(app).cast_mut()) };
}
