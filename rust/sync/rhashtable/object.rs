// SPDX-License-Identifier: GPL-2.0

//! Tables of counted objects, which have their place in the table inside.

use super::{
    InsertError,
    Node,
    Table, //
};
use crate::sync::object::{
    Counted,
    Header,
    Object,
    ObjectRef, //
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        rcu, //
    }, //
};

/// A hash table of objects by their keys, which has a reference to each.
///
/// See [`Table`].
pub type ObjectTable<T> = Table<Counted<T>>;

// SAFETY: The header is the first field and has the head, which only tables use.
unsafe impl<T: Object> Node for Counted<T> {
    type Key = T::Key;

    const HEAD: usize = offset_of!(Header, head);

    #[inline]
    fn key(&self) -> &T::Key {
        self.value().key()
    }

    unsafe fn retire(node: *mut Self, pending: &Atomic<i32>) {
        // Others may have references, so it is not known when it is freed.
        if pending.load(Relaxed) == 0 {
            pending.store(1, Relaxed);
        }
        // SAFETY: The table had the reference, and gives it up. The memory stays for a grace period.
        drop(unsafe { ObjectRef::<T>::from_raw(NonNull::new_unchecked(node)) });
    }

    unsafe fn destroy(node: *mut Self, pending: &Atomic<i32>) {
        // SAFETY: As above.
        unsafe { Self::retire(node, pending) };
    }
}

impl<T: Object> ObjectTable<T> {
    /// The object of `key`, for as long as the RCU read side is held.
    #[inline]
    pub fn get<'a>(&'a self, guard: &'a rcu::Guard, key: &T::Key) -> Option<&'a T> {
        self.find(guard, key).map(Counted::value)
    }

    /// Inserts an object, unless there is one of its key. Any context.
    ///
    /// An object can be inserted once: if it has been removed, that is [`InsertError::Exists`], too.
    pub fn insert(&self, object: &ObjectRef<T>) -> Result<(), InsertError> {
        let node = object.clone().into_raw();
        // SAFETY: The reference was just taken.
        let header = unsafe { &(*node.as_ptr()).header };
        let linked = match header.linked.xchg(true, Full) {
            true => Err(InsertError::Exists),
            // SAFETY: The object is valid and was in no table. The reference keeps it until it is
            // retired.
            false => unsafe { self.link(node.as_ptr()) }.inspect_err(|_| {
                header.linked.store(false, Relaxed);
            }),
        };
        if linked.is_err() {
            // SAFETY: The table has not taken the reference.
            drop(unsafe { ObjectRef::from_raw(node) });
        }
        linked
    }

    /// Puts another object of the same key, which was in no table, in the place of this very one. Who looks
    /// for the key finds one of the two at every moment. Whether it was there. Any context.
    pub fn replace(&self, object: &T, heir: &ObjectRef<T>) -> bool {
        let guard = rcu::Guard::new();
        let Some(node) = self
            .find(&guard, object.key())
            .filter(|node| core::ptr::eq(node.value(), object))
        else {
            return false;
        };
        let new = heir.clone().into_raw();
        // SAFETY: The reference was just taken.
        let header = unsafe { &(*new.as_ptr()).header };
        let replaced = heir.key() == object.key()
            && !header.linked.xchg(true, Full)
            // SAFETY: The object is valid and was in no table. The reference keeps it until it is
            // retired.
            && unsafe { self.exchange(&guard, node, new.as_ptr()) };
        if !replaced {
            // SAFETY: The table has not taken the reference.
            drop(unsafe { ObjectRef::from_raw(new) });
        }
        replaced
    }

    /// Removes this very object. Whether it was there. Any context.
    pub fn remove(&self, object: &T) -> bool {
        let guard = rcu::Guard::new();
        self.find(&guard, object.key())
            .filter(|node| core::ptr::eq(node.value(), object))
            .is_some_and(|node| self.unlink(&guard, node))
    }
}
