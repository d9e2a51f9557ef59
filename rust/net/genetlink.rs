// SPDX-License-Identifier: GPL-2.0

//! Generic netlink families.
//!
//! C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h).
//!
//! A family is a `static` of the module that owns it: a table of operations ([`Ops`]), each with
//! the policy its requests are held to ([`Policy`]) and a plain function, and multicast groups.
//! Families made here exist in every network namespace, run their operations in parallel (what
//! they share must be locked), and validate strictly: unknown, rejected, malformed, misplaced and
//! duplicate attributes never reach the function.
//!
//! # Examples
//!
//! ```ignore
//! use nlb::net::genetlink::{Dump, Family, MulticastGroup, Op, Ops, Policy, Request};
//!
//! static SET: [Policy; 2] = [Policy::reject(), Policy::u32_range(1, 100)];
//! static GET: [Policy; 1] = [Policy::reject()];
//! static OPS: Ops<3> = Ops::new([
//!     Op::doit(1, &SET, set).admin(),
//!     Op::doit(2, &GET, get),
//!     Op::dump(2, &GET, dump),
//! ]);
//! static GROUPS: [MulticastGroup; 1] = [MulticastGroup::new(c"changes")];
//! static FAMILY: Family = Family::new(c"example", 1, &OPS, &GROUPS);
//!
//! fn set(request: &Request<'_>) -> Result {
//!     let value = request.require_u32(1)?;
//!     if value % 2 != 0 {
//!         return Err(request.bad_attr(EINVAL, 1, c"value is odd"));
//!     }
//!     // …
//!     FAMILY.multicast(request.net(), 0, 2, GFP_KERNEL, |w| w.put_u32(1, value))
//! }
//!
//! fn get(request: &Request<'_>) -> Result {
//!     request.reply(|w| w.put_u32(1, 42))
//! }
//!
//! fn dump(dump: &mut Dump<'_>) -> Result {
//!     while dump.state()[0] < 1000 {
//!         let value = dump.state()[0];
//!         if dump.put_entry(|w| w.put_uint(1, value)).is_break() {
//!             break;
//!         }
//!         dump.state()[0] += 1;
//!     }
//!     Ok(())
//! }
//! ```

mod attr;
mod dump;
mod message;
mod policy;
mod request;

pub use self::{
    attr::{
        Attr,
        Attrs, //
    },
    dump::Dump,
    message::{
        Message,
        Writer, //
    },
    policy::Policy,
    request::{
        ExtAck,
        Request, //
    },
};

use crate::{
    bindings,
    errno::EOPNOTSUPP,
    net::netns::Net, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::Flags,
    container_of,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Release, //
    },
    types::Opaque,
};

/// Does what a request asks for. Runs in the context of the process that sent the request and may
/// sleep.
pub type DoFn = fn(&Request<'_>) -> Result;

/// Writes (the next) entries of a dump and may sleep. The first call is made in the context of the process
/// that sent the request, later ones in that of the process that reads the dump; all under a lock of the
/// socket, for which a later request by it has to wait with the lock of all generic netlink families held.
pub type DumpFn = fn(&mut Dump<'_>) -> Result;

/// Looks after what a dump has left when it is over: through, or given up by closing the socket.
pub type DoneFn = fn(&mut Dump<'_>);

#[derive(Clone, Copy)]
enum Handler {
    Do(DoFn),
    Dump {
        start: Option<DumpFn>,
        dump: DumpFn,
        done: Option<DoneFn>,
    },
}

/// One operation of a family.
#[derive(Clone, Copy)]
pub struct Op {
    command: u8,
    flags: u32,
    policy: &'static [Policy],
    repeat: u64,
    secret: Option<u16>,
    handler: Handler,
}

// Set by the kernel's own table format.
const CAP_DO: u32 = bindings::GENL_CMD_CAP_DO;
const CAP_DUMP: u32 = bindings::GENL_CMD_CAP_DUMP;

impl Op {
    const fn new(command: u8, flags: u32, policy: &'static [Policy], handler: Handler) -> Self {
        assert!(
            !policy.is_empty(),
            "a policy table begins with an entry for id 0"
        );
        assert!(policy.len() <= policy::MAX_TABLE, "too many attributes");
        Self {
            command,
            flags: flags | bindings::GENL_CMD_CAP_HASPOL,
            policy,
            repeat: 0,
            secret: None,
            handler,
        }
    }

    /// An operation on one thing. Attributes are held to `policy`, which is indexed by id.
    pub const fn doit(command: u8, policy: &'static [Policy], run: DoFn) -> Self {
        Self::new(command, CAP_DO, policy, Handler::Do(run))
    }

    /// A dump. `run` is called until it returns without having filled the buffer.
    pub const fn dump(command: u8, policy: &'static [Policy], run: DumpFn) -> Self {
        let handler = Handler::Dump {
            start: None,
            dump: run,
            done: None,
        };
        Self::new(command, CAP_DUMP, policy, handler)
    }

    /// Has `check` look at the request before a dump begins, in the context of the process that sent it, so
    /// that it is refused as a `do` would be instead of ending with an error. It writes no entries.
    pub const fn start(mut self, check: DumpFn) -> Self {
        match self.handler {
            Handler::Dump { ref mut start, .. } => *start = Some(check),
            Handler::Do(_) => panic!("only a dump has a start"),
        }
        self
    }

    /// Has `done` called when a dump that has begun is over.
    pub const fn done(mut self, end: DoneFn) -> Self {
        match self.handler {
            Handler::Dump { ref mut done, .. } => *done = Some(end),
            Handler::Do(_) => panic!("only a dump has an end"),
        }
        self
    }

    /// Demands `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
    pub const fn admin(mut self) -> Self {
        self.flags |= bindings::GENL_UNS_ADMIN_PERM;
        self
    }

    /// Lets attribute `id` come more than once (at the outermost level).
    pub const fn repeat(mut self, id: u16) -> Self {
        assert!((id as usize) < self.policy.len(), "no such attribute");
        self.repeat |= 1 << id;
        self
    }

    /// Overwrites attribute `id` in the request once the operation is done, so that what it holds
    /// neither stays in freed memory nor goes back with an error message.
    pub const fn secret(mut self, id: u16) -> Self {
        assert!((id as usize) < self.policy.len(), "no such attribute");
        assert!(matches!(self.handler, Handler::Do(_)), "only for a `do`");
        self.secret = Some(id);
        self
    }
}

/// The operations of a family.
pub struct Ops<const N: usize> {
    /// What the kernel looks at.
    split: [bindings::genl_split_ops; N],
    /// What the trampolines look at.
    table: [Op; N],
}

// SAFETY: Never written after it was built; what it points to is constant and `'static`.
unsafe impl<const N: usize> Sync for Ops<N> {}

impl<const N: usize> Ops<N> {
    /// Builds the table. `ops` must be sorted by command, of one command `do` before `dump`, and
    /// both with the same privilege; the build stops if they are not.
    pub const fn new(ops: [Op; N]) -> Self {
        assert!(N <= u8::MAX as usize, "too many operations");
        // SAFETY: `struct genl_split_ops` consists of integers and of pointers that may be null.
        let mut split: [bindings::genl_split_ops; N] = unsafe { core::mem::zeroed() };
        let mut i = 0;
        while i < N {
            let op = &ops[i];
            if i > 0 {
                let before = &ops[i - 1];
                assert!(
                    before.command < op.command
                        || (before.command == op.command
                            && before.flags & CAP_DO != 0
                            && op.flags & CAP_DUMP != 0),
                    "operations are not in order"
                );
                assert!(
                    before.command != op.command || (before.flags ^ op.flags) == CAP_DO | CAP_DUMP,
                    "do and dump differ in privilege"
                );
            }
            split[i].cmd = op.command;
            split[i].flags = op.flags as u8;
            split[i].policy = op.policy.as_ptr().cast();
            split[i].maxattr = (op.policy.len() - 1) as u32;
            match op.handler {
                Handler::Do(_) => {
                    split[i].__bindgen_anon_1.__bindgen_anon_1 =
                        bindings::genl_split_ops__bindgen_ty_1__bindgen_ty_1 {
                            pre_doit: None,
                            doit: Some(doit_callback),
                            post_doit: None,
                        };
                }
                Handler::Dump { .. } => {
                    split[i].__bindgen_anon_1.__bindgen_anon_2 =
                        bindings::genl_split_ops__bindgen_ty_1__bindgen_ty_2 {
                            start: Some(start_callback),
                            dumpit: Some(dumpit_callback),
                            done: Some(done_callback),
                        };
                }
            }
            i += 1;
        }
        Self { split, table: ops }
    }
}

/// A multicast group of a family.
#[repr(transparent)]
pub struct MulticastGroup(bindings::genl_multicast_group);

impl MulticastGroup {
    /// A group that anybody may join. `name` has at most 15 bytes.
    pub const fn new(name: &CStr) -> Self {
        Self(bindings::genl_multicast_group {
            name: name_array(name),
            flags: 0,
        })
    }

    /// Demands `CAP_NET_ADMIN` of those who join.
    pub const fn admin(mut self) -> Self {
        self.0.flags = bindings::GENL_MCAST_CAP_NET_ADMIN;
        self
    }
}

/// `GENL_NAMSIZ`, the size of a name with its NUL.
const NAME_SIZE: usize = 16;

const fn name_array(name: &CStr) -> [c_char; NAME_SIZE] {
    let bytes = name.to_bytes();
    assert!(
        !bytes.is_empty() && bytes.len() < NAME_SIZE,
        "bad length of a name"
    );
    let mut array = [0; NAME_SIZE];
    let mut i = 0;
    while i < bytes.len() {
        array[i] = bytes[i] as c_char;
        i += 1;
    }
    array
}

/// Groups that a family may have.
const MAX_GROUPS: usize = 16;

/// Whether somebody has joined a group with this place in its family's table, of any family, since this
/// module was loaded: of what nobody has ever wanted to hear nothing more is asked. It is never taken
/// back, for the kernel tells of those who leave what they have not joined, too.
static JOINED: [Atomic<bool>; MAX_GROUPS] = [const { Atomic::new(false) }; MAX_GROUPS];

/// Notes that somebody is about to join a group.
extern "C" fn bind_callback(group: c_int) -> c_int {
    let joined = usize::try_from(group).ok().and_then(|at| JOINED.get(at));
    if let Some(joined) = joined {
        joined.store(true, Release);
    }
    0
}

/// A generic netlink family, to be declared as a `static`.
///
/// # Invariants
///
/// While `registered` is [`REGISTERED`], `inner` is known to the kernel and, but for the kernel,
/// constant. Only the holder of the transition from [`IDLE`] to [`BUSY`], and from [`REGISTERED`]
/// to [`IDLE`], may touch it otherwise.
pub struct Family {
    inner: Opaque<bindings::genl_family>,
    table: &'static [Op],
    registered: Atomic<u32>,
}

const IDLE: u32 = 0;
const BUSY: u32 = 1;
const REGISTERED: u32 = 2;

// SAFETY: `inner` is only changed under the rules of the type invariant, and the functions of
// generic netlink that take it may be called from any thread.
unsafe impl Sync for Family {}

impl Family {
    /// Describes a family. `name` has at most 15 bytes.
    pub const fn new<const N: usize>(
        name: &CStr,
        version: u32,
        ops: &'static Ops<N>,
        groups: &'static [MulticastGroup],
    ) -> Self {
        assert!(groups.len() <= MAX_GROUPS, "too many groups");
        // SAFETY: `struct genl_family` consists of integers and of pointers that may be null.
        let mut family: bindings::genl_family = unsafe { core::mem::zeroed() };
        family.name = name_array(name);
        family.version = version;
        family.split_ops = ops.split.as_ptr();
        family.n_split_ops = N as u8;
        family.mcgrps = groups.as_ptr().cast();
        family.n_mcgrps = groups.len() as u8;
        family.bind = Some(bind_callback);
        // INVARIANT: Nobody knows it yet.
        Self {
            inner: Opaque::new(family),
            table: &ops.table,
            registered: Atomic::new(IDLE),
        }
    }

    /// Makes the family known to user space.
    ///
    /// `module` is the module that the functions of the operations are in: it stays loaded while
    /// one of them runs, and while a dump is open. Requests may come before this function has
    /// returned, so it is called when everything else is in place. `EBUSY` if it is registered
    /// already, `EEXIST` if another family has the name.
    pub fn register(&'static self, module: &'static ThisModule) -> Result<Registration> {
        if self.registered.cmpxchg(IDLE, BUSY, Full).is_err() {
            return Err(EBUSY);
        }
        let family = self.inner.get();
        // SAFETY: By the type invariant, this thread alone has access.
        unsafe {
            (*family).module = module.as_ptr().cast();
            (*family).set_netnsok(1);
            (*family).set_parallel_ops(1);
        }
        // SAFETY: `self` is `'static`, all tables are, and they are of the form that
        // `genl_register_family()` demands, which `Ops::new()` has checked.
        let result = to_result(unsafe { bindings::genl_register_family(family) });
        // INVARIANT: The state says what the kernel knows.
        self.registered
            .store(if result.is_ok() { REGISTERED } else { IDLE }, Release);
        result?;
        Ok(Registration { family: self })
    }

    /// # Safety
    ///
    /// `ptr` must be the `inner` of a family that is registered.
    unsafe fn from_raw(ptr: *const bindings::genl_family) -> &'static Self {
        let inner = Opaque::cast_from(ptr);
        // SAFETY: By the contract of this function, `inner` is a field of a `Family`, and only a
        // `&'static Family` can be registered.
        unsafe { &*container_of!(inner, Family, inner) }
    }

    fn as_raw(&self) -> *mut bindings::genl_family {
        self.inner.get()
    }

    fn operation(&self, command: u8, cap: u32) -> Result<&'static Op> {
        let mut ops = self.table.iter();
        ops.find(|op| op.command == command && op.flags & cap != 0)
            .ok_or(EOPNOTSUPP.into())
    }

    /// Whether somebody in `net` listens to a group, given by its place in the table.
    pub fn has_listeners(&self, net: &Net, group: u8) -> bool {
        let joined = JOINED.get(usize::from(group));
        if !joined.is_some_and(|joined| joined.load(Acquire)) {
            return false;
        }
        // SAFETY: The field does not change.
        let groups = unsafe { (*self.as_raw()).n_mcgrps };
        if self.registered.load(Acquire) != REGISTERED || group >= groups {
            return false;
        }
        let net = net.as_raw();
        // SAFETY: `net` is valid. A namespace has this socket from before the first module's
        // per-namespace state is set up until after the last one's is gone; the check covers
        // callers that hold on to a namespace for longer.
        if unsafe { core::ptr::read_volatile(&raw const (*net).genl_sock) }.is_null() {
            return false;
        }
        // SAFETY: The family is registered and has the group; the namespace has its socket.
        unsafe { bindings::genl_has_listeners(self.as_raw(), net, group.into()) > 0 }
    }

    /// Sends a message that `fill` writes to those in `net` who listen to a group, given by its
    /// place in the table. `fill` is not called when nobody listens.
    ///
    /// Works in any context if `flags` do, and does nothing while the family is not registered.
    /// Fails with what `fill` returns, `ENOMEM`, or `ENOBUFS` if a listener's buffer is full (the
    /// listener learns of it, too).
    pub fn multicast(
        &'static self,
        net: &Net,
        group: u8,
        command: u8,
        flags: Flags,
        fill: impl FnOnce(&mut Writer<'_>) -> Result,
    ) -> Result {
        if !self.has_listeners(net, group) {
            return Ok(());
        }
        let mut message = Message::notification(self, command, flags)?;
        fill(&mut message)?;
        message.multicast(net, group, flags)
    }
}

/// A family that user space can use. Dropping it ends that, after the operations that run.
///
/// Should be the first thing to go when a module is unloaded, and the last to be made.
pub struct Registration {
    family: &'static Family,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: The family is registered, as `self` exists. This waits for operations that run,
        // and no new one can begin; an open dump holds a reference to the module.
        unsafe { bindings::genl_unregister_family(self.family.as_raw()) };
        // INVARIANT: The kernel has forgotten it.
        self.family.registered.store(IDLE, Release);
    }
}

/// Runs the function of a `do` operation.
///
/// # Safety
///
/// To be called by generic netlink alone, for an operation of an [`Ops`] table of a [`Family`].
unsafe extern "C" fn doit_callback(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    from_result(|| {
        let info = NonNull::new(info).ok_or(EINVAL)?;
        // SAFETY: `genl_family_rcv_msg_doit()` calls this with a valid `info`, for an operation of
        // a table in a `Family`.
        let request = unsafe { Request::from_raw(info) };
        let op = request.family().operation(request.command(), CAP_DO)?;
        let Handler::Do(run) = op.handler else {
            return Err(EOPNOTSUPP.into());
        };
        let result = request
            .refuse_duplicates(op.policy, op.repeat, request.extack(), 0)
            .and_then(|()| run(&request));
        if let Some(id) = op.secret {
            request.wipe(id);
        }
        result?;
        Ok(0)
    })
}

/// Looks at the request for a dump.
///
/// # Safety
///
/// To be called by generic netlink alone, for an operation of an [`Ops`] table of a [`Family`].
unsafe extern "C" fn start_callback(cb: *mut bindings::netlink_callback) -> c_int {
    from_result(|| {
        // SAFETY: `genl_start()` calls this with a valid `cb` for an operation of a table in a
        // `Family`.
        let mut dump = unsafe { Dump::from_raw(core::ptr::null_mut(), cb) }?;
        let request = dump.request();
        let op = request.family().operation(request.command(), CAP_DUMP)?;
        request.refuse_duplicates(op.policy, op.repeat, request.extack(), 0)?;
        if let Handler::Dump {
            start: Some(start), ..
        } = op.handler
        {
            start(&mut dump)?;
        }
        Ok(0)
    })
}

/// Looks after a dump that is over.
///
/// # Safety
///
/// To be called by generic netlink alone, for an operation of an [`Ops`] table of a [`Family`].
unsafe extern "C" fn done_callback(cb: *mut bindings::netlink_callback) -> c_int {
    from_result(|| {
        // SAFETY: `genl_done()` calls this with a valid `cb` for an operation of a table in a `Family`.
        let mut dump = unsafe { Dump::from_raw(core::ptr::null_mut(), cb) }?;
        let request = dump.request();
        let op = request.family().operation(request.command(), CAP_DUMP)?;
        if let Handler::Dump {
            done: Some(done), ..
        } = op.handler
        {
            done(&mut dump);
        }
        Ok(0)
    })
}

/// Runs the function of a dump.
///
/// # Safety
///
/// To be called by generic netlink alone, for an operation of an [`Ops`] table of a [`Family`].
unsafe extern "C" fn dumpit_callback(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    from_result(|| {
        // SAFETY: `genl_dumpit()` calls this with a valid `skb` and `cb` for an operation of a
        // table in a `Family`.
        let mut dump = unsafe { Dump::from_raw(skb, cb) }?;
        let request = dump.request();
        let op = request.family().operation(request.command(), CAP_DUMP)?;
        let Handler::Dump { dump: run, .. } = op.handler else {
            return Err(EOPNOTSUPP.into());
        };
        run(&mut dump)?;
        dump.finish()?;
        Ok(0)
    })
}
