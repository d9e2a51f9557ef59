// SPDX-License-Identifier: GPL-2.0

//! Network namespaces, and state that a module keeps in each of them.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/net/netns/generic.h`](srctree/include/net/netns/generic.h)

use super::netfilter::HookOps;
use crate::{
    bindings,
    new_spinlock_bh,
    sync::SpinLockBh, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        size_of,
        ManuallyDrop, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        atomic::{
            Atomic,
            Full,
            Release, //
        },
        rcu,
        Arc, //
    },
    types::Opaque, //
};

/// A network namespace, `struct net`.
///
/// # Invariants
///
/// A `&Net` points to an initialised `struct net`, whose reference count is above zero, or whose
/// per-namespace exit callbacks have not returned yet.
#[repr(transparent)]
pub struct Net(Opaque<bindings::net>);

// SAFETY: `struct net` may be used and released on any CPU; what is accessed here is either
// constant or does its own locking.
unsafe impl Send for Net {}

// SAFETY: As above.
unsafe impl Sync for Net {}

impl Net {
    /// Makes a reference of a pointer that came from C.
    ///
    /// # Safety
    ///
    /// For all of `'a`, `ptr` must point to an initialised `struct net` that does not go away.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::net) -> &'a Net {
        // CAST: `Net` is `repr(transparent)` over `struct net`.
        // SAFETY: The safety requirements say that it is valid.
        unsafe { &*ptr.cast() }
    }

    /// The C object.
    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// Whether `other` is this very namespace.
    #[inline]
    pub fn is(&self, other: &Net) -> bool {
        ptr::eq(self, other)
    }

    /// The inode number of the namespace, as `readlink /proc/PID/ns/net` shows it.
    pub fn inum(&self) -> u32 {
        // SAFETY: By the type invariants, this is an initialised `struct net`; the number never
        // changes.
        unsafe { (*self.as_raw()).ns.inum }
    }

    /// The namespace's value for module `id`, null if it has none.
    #[inline]
    fn generic(&self, id: u32, _guard: &rcu::Guard) -> *mut c_void {
        // SAFETY: By the type invariants, this is an initialised `struct net`. The array it points
        // to is replaced under RCU, whose read side is held, and published after it was filled.
        unsafe {
            let gen: *mut bindings::net_generic =
                ptr::read_volatile(ptr::addr_of!((*self.as_raw()).gen));
            let array = ptr::addr_of!((*gen).__bindgen_anon_1);
            // The length and the pointers overlay each other in one array.
            let len = (*array.cast::<bindings::net_generic__bindgen_ty_1__bindgen_ty_1>()).len;
            // A namespace that registration has not come to yet may have a shorter array.
            if id >= len {
                return ptr::null_mut();
            }
            ptr::read_volatile(array.cast::<*mut c_void>().add(id as usize))
        }
    }
}

// SAFETY: `get_net()` and `put_net()` count references, and the object lives while there is one.
unsafe impl AlwaysRefCounted for Net {
    fn inc_ref(&self) {
        // SAFETY: The shared reference guarantees a live namespace.
        unsafe { bindings::get_net(self.as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns one reference count and gives it up.
        unsafe { bindings::put_net(obj.cast().as_ptr()) };
    }
}

/// A handle of a namespace that does not keep it alive.
///
/// State that lives in a namespace must not hold an [`ARef<Net>`], or the namespace could never
/// end. Its timers and threads hold this instead, and take a real reference for as long as they
/// work.
#[derive(Clone)]
pub struct WeakNet(Arc<WeakInner>);

/// # Invariants
///
/// A pointer in `net` is to a `struct net` whose memory is valid: it is taken away before the
/// namespace's exit callbacks return.
#[pin_data]
struct WeakInner {
    #[pin]
    net: SpinLockBh<Option<NonNull<Net>>>,
}

// SAFETY: The pointer is only turned into a reference under the lock, and `Net` is `Send + Sync`.
unsafe impl Send for WeakInner {}

// SAFETY: As above.
unsafe impl Sync for WeakInner {}

impl WeakNet {
    fn new(net: &Net) -> Result<Self> {
        let net = NonNull::from(net);
        // INVARIANT: The namespace is being set up, and `clear` comes before its end.
        let inner = Arc::pin_init(
            pin_init!(WeakInner { net <- new_spinlock_bh!(Some(net)) }),
            GFP_KERNEL,
        )?;
        Ok(Self(inner))
    }

    fn clear(&self) {
        *self.0.net.lock() = None;
    }

    /// Takes a reference to the namespace, if it is not about to end.
    ///
    /// Any context but hard interrupts.
    pub fn upgrade(&self) -> Option<ARef<Net>> {
        let net = self.0.net.lock();
        let ptr = (*net)?;
        // SAFETY: By the type invariants, the memory is valid while the lock is held.
        if unsafe { bindings::maybe_get_net(ptr.cast().as_ptr()) }.is_null() {
            return None;
        }
        // SAFETY: A reference was just taken, and is handed over.
        Some(unsafe { ARef::from_raw(ptr) })
    }
}

/// State of a module in one network namespace.
///
/// Made for every namespace that exists when its [`State`] is registered, and for each one that is
/// created later; torn down when the namespace or the registration ends.
pub trait PerNet: Send + Sync + Sized + 'static {
    /// The static that keeps this state; one per type.
    fn state() -> &'static State<Self>;

    /// Netfilter hooks that go with the state: registered after [`PerNet::init`], gone before
    /// [`PerNet::pre_exit`].
    const HOOKS: &'static [HookOps] = &[];

    /// Makes the state of namespace `net`. Process context.
    ///
    /// `weak` is for work that the state starts.
    fn init(net: &Net, weak: WeakNet) -> impl PinInit<Self, Error>;

    /// Ends what the state started: timers, threads, held packets. Process context; may sleep.
    ///
    /// The namespace's devices go, and are waited for, before [`PerNet::exit`]: references to
    /// devices, such as those of held packets, must be given back here, and no more be taken.
    ///
    /// The hooks are off, but one may still be running on another CPU, and packets may still come
    /// by other ways; both are over when [`PerNet::exit`] runs.
    fn pre_exit(_state: &Self, _net: &Net) {}

    /// The state can be found no more, and no RCU reader has it. Process context; may sleep.
    ///
    /// Its memory goes with the last [`Arc`], as a rule right after this.
    fn exit(_state: &Self, _net: &Net) {}
}

/// What the kernel allocates per namespace, zeroed.
///
/// # Invariants
///
/// `owned` and `weak` are null or came from [`Arc::into_raw`], and own that reference. `state` is
/// null or equal to `owned`; it is nulled an RCU grace period before that is released.
#[repr(C)]
struct Slot<T> {
    state: Atomic<*mut T>,
    owned: *const T,
    weak: *const WeakInner,
}

/// A module's state in all namespaces; a `static` in the module.
///
/// ```ignore
/// static STATE: netns::State<Tunnel> = netns::State::new();
/// // In `Module::init`, kept in the module structure:
/// let netns = STATE.register()?;
/// // In a hook:
/// let tunnel = STATE.get(state.net(), state.rcu());
/// ```
pub struct State<T: PerNet> {
    ops: UnsafeCell<bindings::pernet_operations>,
    id: UnsafeCell<c_uint>,
    /// `register` was called, and the registration has not been dropped.
    claimed: Atomic<bool>,
    /// `id` while it is ours and the values behind it are, too; else 0, which is nobody's.
    published: Atomic<u32>,
    _state: PhantomData<T>,
}

// SAFETY: `ops` and `id` are only written while `claimed` is held and nothing is published.
unsafe impl<T: PerNet> Sync for State<T> {}

impl<T: PerNet> State<T> {
    /// Makes state that no namespace has yet.
    #[expect(clippy::new_without_default, reason = "only useful in a static")]
    pub const fn new() -> Self {
        Self {
            ops: UnsafeCell::new(bindings::pernet_operations {
                list: bindings::list_head {
                    next: ptr::null_mut(),
                    prev: ptr::null_mut(),
                },
                init: None,
                pre_exit: None,
                exit: None,
                exit_batch: None,
                exit_rtnl: None,
                id: ptr::null_mut(),
                size: 0,
            }),
            id: UnsafeCell::new(0),
            claimed: Atomic::new(false),
            published: Atomic::new(0),
            _state: PhantomData,
        }
    }

    /// Gives every namespace its state.
    ///
    /// [`State::get`] finds nothing before this has returned. Errors: `EBUSY` if it is registered
    /// already, `EINVAL` if it is not the one of [`PerNet::state`], `ENOMEM`, and those of
    /// [`PerNet::init`].
    pub fn register(&'static self) -> Result<Registration<T>> {
        if !ptr::eq(self, T::state()) {
            return Err(EINVAL);
        }
        if self.claimed.xchg(true, Full) {
            return Err(EBUSY);
        }
        let ops = self.ops.get();
        // SAFETY: `claimed` was not set, so nobody else has access.
        unsafe {
            (*ops).init = Some(Self::init_callback);
            (*ops).pre_exit = Some(Self::pre_exit_callback);
            (*ops).exit = Some(Self::exit_callback);
            (*ops).id = self.id.get();
            (*ops).size = size_of::<Slot<T>>();
        }
        // SAFETY: `ops` is in a static and filled; the callbacks fit to it.
        if let Err(e) = to_result(unsafe { bindings::register_pernet_subsys(ops) }) {
            self.claimed.store(false, Release);
            return Err(e);
        }
        // SAFETY: Written by `register_pernet_subsys()`, which has returned.
        self.published.store(unsafe { *self.id.get() }, Release);
        Ok(Registration(self))
    }

    /// The state in namespace `net`, for as long as the RCU read side is held.
    ///
    /// `None` before registration, and once the namespace or the registration has ended.
    #[inline]
    pub fn get<'a>(&self, net: &'a Net, guard: &'a rcu::Guard) -> Option<&'a T> {
        // This and the pointer below are `READ_ONCE()`, and what they lead to depends on them; the
        // methods of atomics are function calls.
        // SAFETY: The pointer is valid.
        let id = unsafe { self.published.as_ptr().read_volatile() };
        if id == 0 {
            return None;
        }
        // It was published while the RCU read side is held, so it is ours until that is released:
        // unregistering takes it back, then waits for a grace period.
        let slot = net.generic(id, guard).cast::<Slot<T>>();
        if slot.is_null() {
            return None;
        }
        // SAFETY: As `id` is ours, so is the value, and it is freed a grace period later.
        let state = unsafe { (*slot).state.as_ptr().read_volatile() };
        // SAFETY: By the invariants of `Slot`, the reference is valid while the read side is held.
        unsafe { state.as_ref() }
    }

    /// The state in namespace `net`, counted, for code that sleeps.
    ///
    /// It may outlive [`PerNet::exit`], so give it back soon.
    pub fn get_arc(&self, net: &Net) -> Option<Arc<T>> {
        let guard = rcu::Guard::new();
        let state = NonNull::from(self.get(net, &guard)?);
        // SAFETY: By the invariants of `Slot`, the pointer came from `Arc::into_raw` and the slot
        // owns a count, which it gives back a grace period after it was nulled: there is one.
        let owned = ManuallyDrop::new(unsafe { Arc::from_raw(state.as_ptr().cast_const()) });
        Some(Arc::clone(&owned))
    }

    /// The slot of `net` from within a callback of `register_pernet_subsys()`.
    ///
    /// # Safety
    ///
    /// Only from such a callback, where `id` is assigned and the slot allocated.
    unsafe fn slot(&self, net: &Net) -> *mut Slot<T> {
        // SAFETY: By the safety requirements, nobody writes `id`.
        let id = unsafe { *self.id.get() };
        net.generic(id, &rcu::Guard::new()).cast()
    }

    /// # Safety
    ///
    /// Only called by the kernel, as `init` of `ops`.
    unsafe extern "C" fn init_callback(net: *mut bindings::net) -> c_int {
        from_result(|| {
            // SAFETY: The kernel passes a namespace that stays for the duration of the call.
            let net = unsafe { Net::from_raw(net) };
            // SAFETY: This is such a callback.
            let slot = unsafe { T::state().slot(net) };
            let weak = WeakNet::new(net)?;
            let state = match Arc::pin_init(T::init(net, weak.clone()), GFP_KERNEL) {
                Ok(state) => Arc::into_raw(state),
                Err(e) => {
                    weak.clear();
                    return Err(e);
                }
            };
            // INVARIANT: Both came from `into_raw`.
            // SAFETY: The slot is allocated, zeroed, and only used by readers of `state`.
            unsafe {
                (*slot).weak = Arc::into_raw(weak.0);
                (*slot).owned = state;
                (*slot).state.store(state.cast_mut(), Release);
            }
            // SAFETY: `HOOKS` is static, and goes away in `pre_exit_callback`.
            let ret = unsafe { HookOps::register_all(T::HOOKS, net) };
            if ret.is_err() {
                // SAFETY: The state was just stored; the kernel calls neither of the two after an
                // error.
                unsafe {
                    Self::pre_exit(net, slot);
                    bindings::synchronize_rcu();
                    Self::exit(net, slot);
                }
            }
            ret.map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// Only called by the kernel, as `pre_exit` of `ops`.
    unsafe extern "C" fn pre_exit_callback(net: *mut bindings::net) {
        // SAFETY: The kernel passes a namespace that stays until its exit callbacks are done.
        let net = unsafe { Net::from_raw(net) };
        // SAFETY: This is such a callback.
        let slot = unsafe { T::state().slot(net) };
        // SAFETY: They were registered in `init_callback`.
        unsafe { HookOps::unregister_all(T::HOOKS, net) };
        // SAFETY: `init_callback` filled the slot.
        unsafe { Self::pre_exit(net, slot) };
    }

    /// # Safety
    ///
    /// Only called by the kernel, as `exit` of `ops`.
    unsafe extern "C" fn exit_callback(net: *mut bindings::net) {
        // SAFETY: As in `pre_exit_callback`.
        let net = unsafe { Net::from_raw(net) };
        // SAFETY: This is such a callback.
        let slot = unsafe { T::state().slot(net) };
        // SAFETY: `pre_exit_callback` ran, and the kernel has waited for a grace period since.
        unsafe { Self::exit(net, slot) };
    }

    /// Ends the state's activity and takes it out of sight.
    ///
    /// # Safety
    ///
    /// `slot` is the filled slot of `net`; no hook is registered.
    unsafe fn pre_exit(net: &Net, slot: *mut Slot<T>) {
        // SAFETY: By the safety requirements and the invariants of `Slot`; it keeps its reference.
        let weak = ManuallyDrop::new(WeakNet(unsafe { Arc::from_raw((*slot).weak) }));
        weak.clear();
        // SAFETY: As above.
        T::pre_exit(unsafe { &*(*slot).owned }, net);
        // SAFETY: As above.
        unsafe { (*slot).state.store(ptr::null_mut(), Release) };
    }

    /// Releases the state.
    ///
    /// # Safety
    ///
    /// `slot` is the filled slot of `net`, and an RCU grace period has passed since `pre_exit`.
    unsafe fn exit(net: &Net, slot: *mut Slot<T>) {
        // SAFETY: By the invariants of `Slot`, these came from `into_raw` and own a count each; a
        // grace period has passed since they could be found.
        let (state, weak) = unsafe { (Arc::from_raw((*slot).owned), Arc::from_raw((*slot).weak)) };
        T::exit(&state, net);
        drop(state);
        drop(weak);
    }
}

/// Keeps the state registered; dropping it tears down the state of every namespace.
///
/// Drop it after what finds the state in other ways, such as netlink families, and from a context
/// that may sleep.
pub struct Registration<T: PerNet>(&'static State<T>);

impl<T: PerNet> Drop for Registration<T> {
    fn drop(&mut self) {
        self.0.published.store(0, Release);
        // SAFETY: It is registered. This waits for a grace period before it calls `exit`, hence
        // nobody who has seen the identifier is left when it is given back.
        unsafe { bindings::unregister_pernet_subsys(self.0.ops.get()) };
        // Callbacks that the state left pending are in the module's code.
        // SAFETY: A plain call; process context.
        unsafe { bindings::rcu_barrier() };
        self.0.claimed.store(false, Release);
    }
}
