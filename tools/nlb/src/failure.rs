// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a command failed, as it is told to people and to programs.

use std::io;

use nlb_netlink::{
    errno_name,
    Error, //
};

const EPERM: i32 = 1;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel or the way to it.
    Netlink(Error),
    /// Standard output.
    Output(io::Error),
    /// Everything else, as a sentence.
    Text(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Netlink(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// Whether the reader of our output went away, which is nobody's fault.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The sentence for people, with the remedy where there is one.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Netlink(Error::FamilyMissing(family)) => {
                let module = family.replace('-', "_");
                format!("the module {module} is not loaded; load the module: modprobe {module}")
            }
            Self::Netlink(Error::FamilyGone(family)) => {
                let module = family.replace('-', "_");
                format!("the module {module} was unloaded; nothing more is heard of it: begin again when it is loaded")
            }
            Self::Netlink(Error::Refused(refusal))
                if refusal.errno == EPERM && refusal.text.is_none() =>
            {
                format!(
                    "{}; this needs CAP_NET_ADMIN in the network namespace",
                    refusal.message()
                )
            }
            Self::Netlink(error) => error.to_string(),
            Self::Output(error) => format!("cannot write the output: {error}"),
            Self::Text(text) => text.clone(),
        }
    }

    /// The object for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        let text = match self {
            // Text and attribute have a member each.
            Self::Netlink(Error::Refused(refusal)) if refusal.text.is_some() => refusal.message(),
            _ => self.text(),
        };
        object.insert("error".into(), text.into());
        if let Self::Netlink(error) = self {
            if let Some(errno) = error.errno() {
                object.insert("errno".into(), errno_name(errno).into());
            }
            if let Some(offender) = error
                .refusal()
                .and_then(|refusal| refusal.attribute.as_ref())
            {
                object.insert("attribute".into(), offender.label().into());
            }
        }
        object.into()
    }
}

#[cfg(test)]
mod tests {
    use nlb_netlink::{
        Offender,
        Refusal, //
    };

    use super::*;

    fn refused(errno: i32, text: Option<&str>, attribute: Option<&'static str>) -> Failure {
        Failure::Netlink(Error::Refused(Refusal {
            errno,
            text: text.map(str::to_owned),
            attribute: attribute.map(|name| Offender {
                id: 1,
                name: Some(name),
                missing: false,
            }),
            code: None,
        }))
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let failure = refused(17, Some("service exists"), Some("vip-addr"));
        assert_eq!(failure.text(), "service exists (attribute vip-addr)");
        assert_eq!(
            failure.json().to_string(),
            r#"{"attribute":"vip-addr","errno":"EEXIST","error":"service exists"}"#
        );
        let silent = refused(2, None, None);
        assert_eq!(silent.text(), "No such file or directory");
        assert_eq!(silent.json()["error"], "No such file or directory");
    }

    #[test]
    fn remedies() {
        let failure = Failure::Netlink(Error::FamilyMissing("nlb-fwd".into()));
        assert!(failure.text().ends_with("modprobe nlb_fwd"));
        let failure = Failure::Netlink(Error::FamilyGone("nlb-fwd".into()));
        let said = failure.text();
        assert!(said.starts_with("the module nlb_fwd was unloaded; "));
        assert!(refused(EPERM, None, None).text().contains("CAP_NET_ADMIN"));
        assert_eq!(refused(EPERM, Some("not yours"), None).text(), "not yours");
    }
}
