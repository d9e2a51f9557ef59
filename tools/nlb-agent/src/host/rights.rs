// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may say what of which application.

use super::{missing, Host, OF_USER_MAX};
use crate::app::{App, Origin, Spec};
use nlb_daemon::api::Caller;

impl Host {
    /// Whether it is not here, shall be draining when it comes, and the caller may say otherwise.
    pub(super) fn is_absent_of(&self, caller: Caller, name: &str) -> bool {
        let is_its = |uid| uid == caller.uid || self.trusted.contains(&caller.uid);
        let absent = self.absent.get(name).is_some_and(|(uid, _)| is_its(*uid));
        absent && !self.apps.contains_key(name)
    }

    /// An application that the caller may speak for.
    pub(super) fn own(&mut self, caller: Caller, name: &str) -> Result<&mut App, String> {
        let is_trusted = self.trusted.contains(&caller.uid);
        let app = self.apps.get_mut(name).ok_or_else(|| missing(name))?;
        if is_trusted || app.is_of(caller.uid) {
            Ok(app)
        } else {
            Err(format!(
                "{name} is not an application of user {}",
                caller.uid
            ))
        }
    }

    /// Whether what a user has registered may be there, as things are now.
    pub(super) fn may_stay(&self, uid: u32, spec: &Spec) -> Result<(), String> {
        self.may_register(uid)?;
        self.may_be_at(uid, spec)
    }

    pub(super) fn may_register(&self, uid: u32) -> Result<(), String> {
        if self.trusted.contains(&uid) || self.register.contains(&uid) {
            return Ok(());
        }
        Err(format!(
            "user {uid} may not register; add it to `register` in the configuration file"
        ))
    }

    /// Whether a user may say anything of the endpoint: one of this host, of which nobody else does. The worst of what
    /// is said of an endpoint counts.
    pub(super) fn may_be_at(&self, uid: u32, spec: &Spec) -> Result<(), String> {
        if self.trusted.contains(&uid) {
            return Ok(());
        }
        let physical = spec.physical.ip();
        if !self.addresses.contains(&physical) {
            return Err(format!(
                "physical {physical} is no address of this host (`addresses`)"
            ));
        }
        let mut others = self.apps.iter().filter(|(_, app)| !app.is_of(uid));
        match others.find(|(_, app)| app.spec.shares_endpoint(spec)) {
            Some((other, _)) => Err(format!(
                "{other}, which is not of user {uid}, is the same endpoint"
            )),
            None => Ok(()),
        }
    }

    /// Whether a user has room for one more.
    pub(super) fn may_have_more(&self, uid: u32) -> Result<(), String> {
        let is_its = |app: &&App| matches!(app.origin, Origin::Registered { uid: owner, .. } if owner == uid);
        let count = self.apps.values().filter(is_its).count();
        if count < OF_USER_MAX || self.trusted.contains(&uid) {
            return Ok(());
        }
        Err(format!(
            "user {uid} has registered {count} applications, and may not have more"
        ))
    }
}
