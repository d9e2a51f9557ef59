// SPDX-License-Identifier: GPL-2.0

//! Counted objects that RCU readers may use, for a grace period after the last reference is gone.
//!
//! An object is one piece of memory, whatever finds it: it has its place in a hash table inside it
//! ([`ObjectTable`]), and other modules know a part of it ([`Part`]), by a number ([`IdTable`]).
//!
//! [`ObjectTable`]: super::rhashtable::ObjectTable
//! [`IdTable`]: super::id_table::IdTable

use super::{
    read_once,
    rhashtable::Key, //
};
use crate::{
    alloc::gfp,
    bindings, //
};
use core::{
    marker::PhantomData,
    mem::{
        align_of,
        size_of, //
    },
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        Refcount, //
    },
    types::Opaque, //
};

/// What can be a counted object.
pub trait Object: Send + Sync + Sized + 'static {
    /// By what a hash table finds it.
    type Key: Key;

    /// The part of it that others may know.
    type Part: Send + Sync + 'static;

    /// The key, always the same.
    fn key(&self) -> &Self::Key;

    /// The part, which has to be inside the object.
    fn part(&self) -> &Self::Part;
}

/// What an object begins with.
#[repr(C)]
pub(super) struct Header {
    /// Its function, set from the beginning, frees the object.
    rcu: Opaque<bindings::callback_head>,
    /// The place in a hash table.
    pub(super) head: Opaque<bindings::rhash_head>,
    refcount: Refcount,
    /// Where the part begins, from the beginning of the header.
    part: u16,
    /// Whether it is, or was, in a hash table. It can be in one once.
    pub(super) linked: Atomic<bool>,
}

/// An object as it lies in memory.
///
/// # Invariants
///
/// It is in memory that `kfree()` takes, and `rcu` has the function that frees it. `part` is the
/// offset of an [`Object::Part`] in `value`.
#[repr(C)]
pub struct Counted<T> {
    pub(super) header: Header,
    value: T,
}

impl<T> Counted<T> {
    /// The object.
    #[inline]
    pub fn value(&self) -> &T {
        &self.value
    }
}

// SAFETY: The header is written under the lock of a table, or atomically.
unsafe impl<T: Send> Send for Counted<T> {}

// SAFETY: As above.
unsafe impl<T: Sync> Sync for Counted<T> {}

impl Header {
    /// Gives up a reference.
    ///
    /// # Safety
    ///
    /// `this` is the header of an object, and the caller owns a reference and gives it up.
    unsafe fn put(this: NonNull<Self>) {
        // SAFETY: By the safety requirements, the object is there.
        if !unsafe { this.as_ref() }.refcount.dec_and_test() {
            return;
        }
        // SAFETY: That was the last reference, and nobody takes another one from a pointer that
        // was found under RCU. By the invariants, `func` is the function that frees the object.
        unsafe {
            let rcu = (*this.as_ptr()).rcu.get();
            bindings::call_rcu(rcu, (*rcu).func);
        }
    }
}

/// A reference to an object.
///
/// # Invariants
///
/// The pointer is to a [`Counted<T>`], of which this owns a reference.
pub struct ObjectRef<T: Object>(NonNull<Counted<T>>);

// SAFETY: The value may be used, and dropped, by all threads.
unsafe impl<T: Object> Send for ObjectRef<T> {}

// SAFETY: As above.
unsafe impl<T: Object> Sync for ObjectRef<T> {}

impl<T: Object> ObjectRef<T> {
    /// Makes an object of `value`, with one reference. Any context, with flags that fit to it.
    /// `ENOMEM`; `EINVAL` if the part is not inside.
    pub fn new(value: T, flags: Flags) -> Result<Self> {
        let memory = KBox::<Counted<T>>::new_uninit(flags)?;
        // SAFETY: `KBox` has its memory from `kmalloc()`.
        unsafe { Self::fill(NonNull::from(KBox::leak(memory)).cast(), value) }
    }

    /// # Safety
    ///
    /// `memory` is for a [`Counted<T>`], and owned by the caller, who gives it up; `kfree()` takes
    /// it.
    #[inline(always)]
    unsafe fn fill(memory: NonNull<Counted<T>>, value: T) -> Result<Self> {
        let header = Header {
            rcu: Opaque::new(bindings::callback_head {
                next: ptr::null_mut(),
                func: Some(Self::free_callback),
            }),
            head: Opaque::new(bindings::rhash_head {
                next: ptr::null_mut(),
            }),
            refcount: Refcount::new(1),
            part: 0,
            linked: Atomic::new(false),
        };
        let ptr = memory.as_ptr();
        // INVARIANT: All but `part`, which follows.
        // SAFETY: By the safety requirements, it may be written.
        unsafe { ptr.write(Counted { header, value }) };
        // SAFETY: Just written.
        let part = unsafe { ptr::from_ref((*ptr).value.part()) };
        let offset = part.addr().wrapping_sub(ptr.addr());
        let end = offset.saturating_add(size_of::<T::Part>());
        match u16::try_from(offset) {
            Ok(offset) if end <= size_of::<Counted<T>>() => {
                // INVARIANT: As `part()` returned a reference to a `T::Part` there, which is valid
                // for as long as the value is.
                // SAFETY: Nobody else has it yet.
                unsafe { (*ptr).header.part = offset };
                Ok(Self(memory))
            }
            _ => {
                // SAFETY: Nobody else has it, and it was just written.
                unsafe { Self::free(ptr) };
                Err(EINVAL)
            }
        }
    }

    /// # Safety
    ///
    /// `ptr` is to an object that nobody else has.
    unsafe fn free(ptr: *mut Counted<T>) {
        // SAFETY: By the safety requirements and the invariants of `Counted`.
        unsafe {
            ptr::drop_in_place(ptr);
            bindings::kfree(ptr.cast());
        }
    }

    /// # Safety
    ///
    /// `rcu` is that of an object without references, a grace period ago.
    unsafe extern "C" fn free_callback(rcu: *mut bindings::callback_head) {
        // CAST: It is the first field of the first field.
        // SAFETY: By the safety requirements, nobody has it.
        unsafe { Self::free(rcu.cast()) };
    }

    /// The pointer; the reference goes with it.
    pub(super) fn into_raw(self) -> NonNull<Counted<T>> {
        core::mem::ManuallyDrop::new(self).0
    }

    /// # Safety
    ///
    /// `ptr` is from [`Self::into_raw`], and the caller gives up that reference.
    pub(super) unsafe fn from_raw(ptr: NonNull<Counted<T>>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(ptr)
    }

    /// A reference to the object as those know it who know the part.
    pub fn to_part(&self) -> PartRef<T::Part> {
        // INVARIANT: By the type invariants, and the reference is that of the clone.
        PartRef(self.clone().into_raw().cast(), PhantomData)
    }
}

impl<T: Object> Clone for ObjectRef<T> {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariants.
        unsafe { self.0.as_ref() }.header.refcount.inc();
        // INVARIANT: The reference was just taken.
        Self(self.0)
    }
}

impl<T: Object> Deref for ObjectRef<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariants.
        &unsafe { self.0.as_ref() }.value
    }
}

impl<T: Object> Drop for ObjectRef<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, and it is given up.
        unsafe { Header::put(self.0.cast()) };
    }
}

/// A reference to an object of which only a part is known.
///
/// # Invariants
///
/// The pointer is to the header of a [`Counted`] whose part is a `P`, of which this owns a
/// reference.
pub struct PartRef<P>(NonNull<Header>, PhantomData<P>);

// SAFETY: Only made of an `ObjectRef`, whose value may be used, and dropped, by all threads.
unsafe impl<P: Send + Sync> Send for PartRef<P> {}

// SAFETY: As above.
unsafe impl<P: Send + Sync> Sync for PartRef<P> {}

impl<P> PartRef<P> {
    /// The pointer; the reference goes with it.
    pub(super) fn into_raw(self) -> NonNull<Header> {
        core::mem::ManuallyDrop::new(self).0
    }

    /// # Safety
    ///
    /// `ptr` is from [`Self::into_raw`], and the caller gives up that reference.
    pub(super) unsafe fn from_raw(ptr: NonNull<Header>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(ptr, PhantomData)
    }

    /// The part of an object.
    ///
    /// # Safety
    ///
    /// `header` is from [`Self::into_raw`], and the object is not freed during `'a`.
    #[inline]
    pub(super) unsafe fn part<'a>(header: NonNull<Header>) -> &'a P {
        // SAFETY: By the safety requirements and the invariants of `Counted`.
        unsafe {
            let offset = header.as_ref().part;
            header.byte_add(offset.into()).cast().as_ref()
        }
    }
}

impl<P> Deref for PartRef<P> {
    type Target = P;

    #[inline]
    fn deref(&self) -> &P {
        // SAFETY: By the type invariants.
        unsafe { Self::part(self.0) }
    }
}

impl<P> Drop for PartRef<P> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, and it is given up.
        unsafe { Header::put(self.0) };
    }
}

/// Memory for objects of one type, in exactly their size; a `static` in a module.
///
/// `/proc/slabinfo` shows it by its name, if the kernel does not put it together with another one.
pub struct ObjectCache<T: Object> {
    name: &'static CStr,
    /// Null while it is not registered.
    cache: Atomic<*mut bindings::kmem_cache>,
    _objects: PhantomData<T>,
}

// SAFETY: The pointer is atomic, and what it points to does its own locking.
unsafe impl<T: Object> Sync for ObjectCache<T> {}

impl<T: Object> ObjectCache<T> {
    /// A cache that is not registered yet.
    pub const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            cache: Atomic::new(ptr::null_mut()),
            _objects: PhantomData,
        }
    }

    /// Makes the cache. Process context. `ENOMEM`; `EBUSY` if it is there.
    pub fn register(&'static self) -> Result<CacheRegistration<T>> {
        // CAST: Objects are small.
        let (size, align) = (
            size_of::<Counted<T>>() as u32,
            align_of::<Counted<T>>() as u32,
        );
        // SAFETY: The name is static and ends with a zero.
        let cache = unsafe { bindings::kmem_cache_create(self.name.as_char_ptr(), size, align) };
        if cache.is_null() {
            return Err(ENOMEM);
        }
        if self.cache.cmpxchg(ptr::null_mut(), cache, Full).is_err() {
            // SAFETY: It was just made, and nobody has had memory of it.
            unsafe { bindings::kmem_cache_destroy(cache) };
            return Err(EBUSY);
        }
        Ok(CacheRegistration(self))
    }

    /// As [`ObjectRef::new`], with memory of the cache, of what `value` returns; `ENOMEM` if that is not
    /// registered.
    #[inline(always)]
    pub fn make(&self, flags: Flags, value: impl FnOnce() -> T) -> Result<ObjectRef<T>> {
        // What it points to depends on it.
        let cache = read_once(&self.cache);
        if cache.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: The cache is there: `CacheRegistration` says when it may go.
        let memory = unsafe { bindings::kmem_cache_alloc(cache, gfp(flags)) };
        let memory = NonNull::new(memory).ok_or(ENOMEM)?;
        // SAFETY: It is ours, and made for such objects; `kfree()` takes memory of any cache.
        unsafe { ObjectRef::fill(memory.cast(), value()) }
    }
}

/// A cache that objects can be made of. To be dropped when nobody makes any, and all that were made
/// have been freed: the module's last one, behind [`netns::Registration`], which waits for RCU's
/// callbacks.
///
/// [`netns::Registration`]: crate::net::netns::Registration
pub struct CacheRegistration<T: Object>(&'static ObjectCache<T>);

impl<T: Object> Drop for CacheRegistration<T> {
    fn drop(&mut self) {
        let cache = self.0.cache.load(Acquire);
        self.0.cache.store(ptr::null_mut(), Release);
        // SAFETY: It is from `kmem_cache_create()`. Were there still objects, the kernel would warn
        // and keep the memory.
        unsafe { bindings::kmem_cache_destroy(cache) };
    }
}
