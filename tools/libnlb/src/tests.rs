// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use std::{
    ffi::CString,
    fs,
    net::{
        TcpListener,
        TcpStream, //
    },
    os::fd::AsRawFd,
    ptr,
    thread, //
};

use nlb_netlink::Reason;

const OPTIONS: NlbOptions = NlbOptions {
    size: size_of::<NlbOptions>(),
    timeout_ms: 0,
    read_bytes: 0,
};

fn text() -> String {
    // SAFETY: The function returns a string of this library, which no other call replaces meanwhile.
    let text = unsafe { CStr::from_ptr(nlb_error_text()) };
    text.to_str().unwrap().to_owned()
}

fn migrate(fd: c_int, target: &str, options: &NlbOptions) -> c_int {
    let target = CString::new(target).unwrap();
    // SAFETY: Both are valid, and the options say their size.
    unsafe { nlb_migrate(fd, target.as_ptr(), options) }
}

#[test]
fn arguments_are_checked() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = socket.as_raw_fd();
    for target in ["", "host1", "10.0.2", "10.0.2.2:80", "10.0.2.2 "] {
        assert_eq!(migrate(fd, target, &OPTIONS), -EINVAL, "{target}");
        assert_eq!(text(), "the target is not an IP address");
    }
    // SAFETY: Null is allowed to be passed.
    let result = unsafe { nlb_migrate(fd, ptr::null(), ptr::null()) };
    assert_eq!((result, text().as_str()), (-EINVAL, "no target"));
    assert_eq!(migrate(-1, "10.0.2.2", &OPTIONS), -EBADF);
    assert_eq!(migrate(c_int::MIN, "10.0.2.2", &OPTIONS), -EBADF);
    assert_eq!(nlb_error_reason(), 0);
}

#[test]
fn options_of_other_versions() {
    #[repr(C)]
    struct Later {
        known: NlbOptions,
        later: u64,
    }
    let later = |size, read_bytes, later| Later {
        known: NlbOptions {
            size,
            timeout_ms: 70,
            read_bytes,
        },
        later,
    };
    let whole = size_of::<Later>();
    // SAFETY: The structure has the size that it says, or the size is refused.
    let read = |options: &Later| unsafe { read_options(&raw const options.known) };
    let seventy = Some(Duration::from_millis(70));
    assert_eq!(read(&later(whole, 0, 0)).ok().unwrap().timeout, seventy);
    assert_eq!(read(&later(16, 0, 7)).ok().unwrap().timeout, seventy);
    let read_bytes = |options: &Later| read(options).ok().unwrap().read;
    assert_eq!(read_bytes(&later(whole, 0, 0)), ReadBytes::Nothing);
    assert_eq!(read_bytes(&later(whole, 300, 0)), ReadBytes::Kept(300));
    for wrong in [
        later(whole, 0, 7),
        later(0, 0, 0),
        later(15, 0, 0),
        later(usize::MAX, 0, 0),
    ] {
        assert_eq!(read(&wrong).err().unwrap().errno, EINVAL);
    }
    // SAFETY: Null is allowed.
    let default = unsafe { read_options(ptr::null()) };
    assert_eq!(default.ok().unwrap(), Options::default());
}

#[test]
fn errors_are_the_threads_own() {
    assert_eq!(migrate(-1, "10.0.2.2", &OPTIONS), -EBADF);
    thread::spawn(|| {
        assert_eq!(text(), "");
        assert_eq!(migrate(-1, "nobody", &OPTIONS), -EINVAL);
        assert_eq!(text(), "the target is not an IP address");
    })
    .join()
    .unwrap();
    assert_eq!(text(), "not an open file descriptor");
}

#[test]
fn a_connection_that_stays_works() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, from) = listener.accept().unwrap();
    // Whatever the kernel of this machine says, nobody has this peer.
    let result = migrate(server.as_raw_fd(), "203.0.113.99", &OPTIONS);
    assert!(result < 0);
    assert_ne!(text(), "");
    assert_eq!(server.peer_addr().unwrap(), from);
    drop(client);
}

#[test]
fn panics_stay_inside() {
    let result = at_the_border(|| panic!("no {}", "way"));
    assert_eq!(result, -EBADMSG);
    assert_eq!(text(), "internal error: no way");
    assert_eq!(at_the_border(|| Ok(())), 0);
    assert_eq!(text(), "");
}

#[test]
fn a_text_ends_at_its_first_nul() {
    last_error::set("a\0b", 3);
    assert_eq!(text(), "a");
    assert_eq!(nlb_error_reason(), 3);
}

#[test]
fn the_kernel_s_errors_keep_their_meaning() {
    let refused = |errno, code: Option<Reason>, stays: bool| {
        Failure::from(Stayed {
            connection: stays.then_some(()),
            error: Error::Refused(nlb_netlink::Refusal {
                errno,
                text: None,
                attribute: None,
                code: code.map(|code| code as u32),
            }),
        })
    };
    let failure = refused(111, Some(Reason::NoListener), true);
    assert_eq!((failure.errno, failure.reason), (111, 64));
    let failure = refused(104, Some(Reason::NoAnswer), false);
    assert_eq!((failure.errno, failure.reason), (104, 195));
    assert!(refused(EPERM, None, true).text.contains("CAP_NET_ADMIN"));
    let forwarder = refused(EPERM, Some(Reason::NotForwarder), true);
    assert!(!forwarder.text.contains("CAP_NET_ADMIN"));
    let lost = Failure::from(Stayed::<()> {
        connection: None,
        error: Error::NoAnswer,
    });
    assert_eq!(lost.errno, EBADMSG);
}

#[test]
fn the_header_has_the_functions_and_the_version() {
    for (header, count) in [("nlb.h", 4), ("nlb-app.h", 10)] {
        let header = format!("{}/include/{header}", env!("CARGO_MANIFEST_DIR"));
        let header = fs::read_to_string(header).unwrap();
        let declared = header.lines().filter(|line| line.ends_with(");")).count();
        assert_eq!(declared, count);
    }
    // SAFETY: The function returns a static string.
    let version = unsafe { CStr::from_ptr(nlb_version()) };
    assert_eq!(version.to_str().unwrap(), env!("CARGO_PKG_VERSION"));
}
