// SPDX-License-Identifier: MIT OR Apache-2.0

//! Applications that report: `include/nlb-app.h`. A Rust program uses the crate `nlb-app` instead.

#[cfg(test)]
mod tests;

use std::{
    ffi::{
        c_char,
        c_int,
        c_uint,
        CStr, //
    },
    sync::{
        Mutex,
        PoisonError, //
    },
    time::Duration,
};

use nlb_app::{
    App,
    Closed,
    Error,
    Health,
    Registration,
    State,
    Status, //
};

use crate::{
    at_the_border,
    Failure,
    EBADMSG,
    EINVAL,
    EIO, //
};

const ECONNRESET: c_int = 104;
const ETIMEDOUT: c_int = 110;
const EREMOTEIO: c_int = 121;

/// `struct nlb_app` of the header.
pub struct NlbApp(Mutex<App>);

/// `struct nlb_app_options` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NlbAppOptions {
    /// Size of the caller's structure.
    pub size: usize,
    /// Path of the agent's socket, or null.
    pub socket: *const c_char,
    /// Address and port of the program, or null.
    pub physical: *const c_char,
    /// What is spoken, or null.
    pub protocol: *const c_char,
    /// What tells it from others, or null.
    pub detail: *const c_char,
    /// Milliseconds to wait for each answer; 0 for the default.
    pub timeout_ms: u32,
    /// 1: it does not end with the program.
    pub stays: u32,
}

/// `struct nlb_app_status` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NlbAppStatus {
    /// Size of the caller's structure.
    pub size: usize,
    /// A [`Health`].
    pub health: u32,
    /// Percent.
    pub load: u32,
    /// 0 to 99.
    pub capacity: u32,
    /// A [`State`].
    pub target: u32,
    /// A [`State`].
    pub current: u32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let errno = match &error {
            Error::Agent { source, .. } => match source.raw_os_error() {
                Some(errno) => errno,
                None => ECONNRESET,
            },
            Error::Timeout { .. } => ETIMEDOUT,
            Error::Refused(_) => EREMOTEIO,
            Error::Answer(_) => EBADMSG,
            Error::Argument(_) => EINVAL,
            _ => EIO,
        };
        Self::new(errno, &error.to_string())
    }
}

fn health(number: c_uint) -> Option<Health> {
    let all = [Health::Unknown, Health::Healthy, Health::Failing];
    all.into_iter().find(|own| health_number(*own) == number)
}

fn health_number(health: Health) -> u32 {
    match health {
        Health::Unknown => 0,
        Health::Healthy => 1,
        Health::Failing => 2,
    }
}

fn state_number(state: State) -> u32 {
    match state {
        State::Active => 0,
        State::Draining => 1,
        State::Inactive => 2,
    }
}

/// A text of the caller, if there is one.
///
/// # Safety
///
/// `text` is null or points to a string that ends with a NUL.
unsafe fn text(what: &str, text: *const c_char) -> Result<Option<String>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: By the function's contract, and not null.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map(|text| Some(text.to_owned()));
    text.map_err(|_| Failure::new(EINVAL, &format!("{what} is not UTF-8")))
}

/// An application that was not opened yet.
///
/// # Safety
///
/// The texts, those of the options, too, are null or end with a NUL; `options` is null or points to as many readable
/// bytes as its first member says.
unsafe fn read_app(
    name: *const c_char,
    vip: *const c_char,
    options: *const NlbAppOptions,
) -> Result<App, Failure> {
    // SAFETY: By the function's contract.
    let options = unsafe { crate::read_known(options) }?;
    // SAFETY: By the function's contract.
    let (name, vip) = unsafe { (text("the name", name)?, text("the vip", vip)?) };
    let name = name.ok_or_else(|| Failure::new(EINVAL, "no name"))?;
    let Some(options) = options else {
        return Ok(match vip {
            Some(vip) => App::new(Registration::new(name, vip)),
            None => App::of_file(name),
        });
    };
    // SAFETY: By the function's contract.
    let (socket, physical, protocol, detail) = unsafe {
        (
            text("the socket", options.socket)?,
            text("physical", options.physical)?,
            text("the protocol", options.protocol)?,
            text("the detail", options.detail)?,
        )
    };
    let has_more =
        physical.is_some() || protocol.is_some() || detail.is_some() || options.stays != 0;
    let physical = physical.map(|physical| physical.parse()).transpose();
    let physical =
        physical.map_err(|_| Failure::new(EINVAL, "physical is no address with a port"))?;
    if options.stays > 1 {
        return Err(Failure::new(EINVAL, "stays is neither 0 nor 1"));
    }
    let mut app = match vip {
        Some(vip) => App::new(Registration {
            physical,
            protocol,
            detail,
            hold: options.stays == 0,
            ..Registration::new(name, vip)
        }),
        None if has_more => {
            let what = "an application of the agent's file is what it is there";
            return Err(Failure::new(EINVAL, what));
        }
        None => App::of_file(name),
    };
    if let Some(socket) = socket {
        app = app.at(socket);
    }
    if options.timeout_ms != 0 {
        app = app.with_timeout(Duration::from_millis(options.timeout_ms.into()));
    }
    Ok(app)
}

/// Runs `call` with the application at the border.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
unsafe fn with<T>(
    app: *const NlbApp,
    call: impl FnOnce(&mut App) -> Result<T, Failure>,
    take: impl FnOnce(T),
) -> c_int {
    at_the_border(|| {
        // SAFETY: By the function's contract; it is only borrowed, by any number of threads.
        let app = unsafe { app.as_ref() };
        let app = app.ok_or_else(|| Failure::new(EINVAL, "no application"))?;
        // What a panic leaves behind says everything again.
        let mut app = app.0.lock().unwrap_or_else(PoisonError::into_inner);
        call(&mut app).map(take)
    })
}

/// See the header.
///
/// # Safety
///
/// `app` is null or can be written to; `name` and `vip` are null or end with a NUL; `options` is null or points to a
/// structure whose first member is its size, and whose texts are null or end with a NUL.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_open(
    app: *mut *mut NlbApp,
    name: *const c_char,
    vip: *const c_char,
    options: *const NlbAppOptions,
) -> c_int {
    at_the_border(|| {
        if app.is_null() {
            return Err(Failure::new(EINVAL, "no place for the application"));
        }
        // SAFETY: By the function's contract.
        let own = unsafe { read_app(name, vip, options) }?;
        let own = Box::into_raw(Box::new(NlbApp(Mutex::new(own))));
        // SAFETY: By the function's contract, and not null.
        unsafe { app.write(own) };
        Ok(())
    })
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_register(app: *const NlbApp) -> c_int {
    // SAFETY: By the function's contract.
    unsafe { with(app, |app| Ok(app.register()?), drop) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_health(app: *const NlbApp, health: c_uint) -> c_int {
    let call = |app: &mut App| {
        let health = self::health(health);
        let health = health.ok_or_else(|| Failure::new(EINVAL, "there is no such health"))?;
        Ok(app.health(health)?)
    };
    // SAFETY: By the function's contract.
    unsafe { with(app, call, drop) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_load(app: *const NlbApp, percent: c_uint) -> c_int {
    let call = |app: &mut App| Ok(app.load(u8::try_from(percent).unwrap_or(u8::MAX))?);
    // SAFETY: By the function's contract.
    unsafe { with(app, call, drop) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_capacity(app: *const NlbApp, capacity: c_uint) -> c_int {
    let call = |app: &mut App| Ok(app.capacity(u8::try_from(capacity).unwrap_or(u8::MAX))?);
    // SAFETY: By the function's contract.
    unsafe { with(app, call, drop) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_drain(app: *const NlbApp, state: c_uint) -> c_int {
    let call = |app: &mut App| match state {
        1 => Ok(app.drain(Closed::Draining)?),
        2 => Ok(app.drain(Closed::Inactive)?),
        _ => Err(Failure::new(EINVAL, "the state is no draining or inactive")),
    };
    // SAFETY: By the function's contract.
    unsafe { with(app, call, drop) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_undo(app: *const NlbApp) -> c_int {
    // SAFETY: By the function's contract.
    unsafe { with(app, |app| Ok(app.undo()?), drop) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed; `status` is null or points to as many bytes that can
/// be written as its first member says.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_status(app: *const NlbApp, status: *mut NlbAppStatus) -> c_int {
    const KNOWN: usize = size_of::<NlbAppStatus>();
    let call = |app: &mut App| {
        if status.is_null() {
            return Err(Failure::new(EINVAL, "no place for the status"));
        }
        // SAFETY: By the function's contract; the caller's structure begins with its size.
        let size = unsafe { (&raw const (*status).size).read() };
        if !(KNOWN..=4096).contains(&size) {
            return Err(Failure::new(EINVAL, "the status has no valid size"));
        }
        Ok((size, app.status()?))
    };
    let take = |(size, known): (usize, Status)| {
        let known = NlbAppStatus {
            size,
            health: health_number(known.health),
            load: known.load.into(),
            capacity: known.capacity.into(),
            target: state_number(known.target),
            current: state_number(known.current),
        };
        // SAFETY: By the function's contract, so many bytes can be written; what is not known here is 0.
        unsafe {
            status.write(known);
            status.add(1).cast::<u8>().write_bytes(0, size - KNOWN);
        }
    };
    // SAFETY: By the function's contract.
    unsafe { with(app, call, take) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_unregister(app: *const NlbApp) -> c_int {
    // SAFETY: By the function's contract.
    unsafe { with(app, |app| Ok(app.unregister()?), drop) }
}

/// See the header.
///
/// # Safety
///
/// `app` is null or one of [`nlb_app_open`] that was not closed, and no other thread uses it.
#[no_mangle]
pub unsafe extern "C" fn nlb_app_close(app: *mut NlbApp) {
    if !app.is_null() {
        let close = || {
            // SAFETY: By the function's contract it is a box of ours, and nobody else has it.
            drop(unsafe { Box::from_raw(app) });
            Ok(())
        };
        at_the_border(close);
    }
}
