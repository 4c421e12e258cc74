//! Who somebody is, as a certificate says it: a URI among its subject alternative names. Pure.
//!
//! ```text
//!   flott://<cluster>/jobmanager/<name>    name: the host of jobmanager.rpc.address, or host:port, or the node id
//!   flott://<cluster>/taskmanager/<name>   name: for people
//!   flott://<cluster>/client/<name>        name: for people
//! ```
//!
//! The cluster is a name that whoever makes the certificates chooses, not the id that `cluster init` draws. Whoever has
//! another one in his certificate is refused, so clusters may share a CA.
//!
//! A JobManager's name is what binds its certificate to a member: the membership says under which address each node id
//! is reached, and a member that says that it is node 3 must show the certificate of node 3's address. So node ids that
//! are drawn at the first start need no certificates of their own.

use std::fmt;
use std::str::FromStr;

/// What a process or a person is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    JobManager,
    TaskManager,
    Client,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::JobManager, Self::TaskManager, Self::Client];

    /// As in a certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobManager => "jobmanager",
            Self::TaskManager => "taskmanager",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub cluster: String,
    pub role: Role,
    pub name: String,
}

/// Of a cluster or a name; more would not be a name.
const PART_CHARS_MAX: usize = 255;

const SCHEME: &str = "flott://";

impl Identity {
    /// Fails if cluster or name cannot stand in a certificate; the message says what can.
    pub fn new(cluster: &str, role: Role, name: &str) -> Result<Self, String> {
        for (what, part) in [("cluster name", cluster), ("name", name)] {
            let fits = (1..=PART_CHARS_MAX).contains(&part.len())
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]*@".contains(&byte));
            if !fits {
                return Err(format!(
                    "{what} {part:?} must be 1 to {PART_CHARS_MAX} of A-Z a-z 0-9 . - _ : [ ] * @"
                ));
            }
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            role,
            name: name.to_owned(),
        })
    }

    /// The one identity among the URIs of a certificate.
    pub(super) fn among<'u>(uris: impl Iterator<Item = &'u str>) -> Result<Self, String> {
        let mut ours = uris.filter(|uri| uri.starts_with(SCHEME));
        match (ours.next(), ours.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err(format!(
                "it names no Flott identity (a subject alternative name {SCHEME}CLUSTER/ROLE/NAME)"
            )),
            (Some(one), Some(other)) => Err(format!(
                "it names more than one identity, {one} and {other}"
            )),
        }
    }

    /// Whether this is the certificate of the JobManager with that node id at that address.
    pub fn names_member(&self, node: u64, address: &str) -> bool {
        self.role == Role::JobManager
            && (self.name == address
                || self.name == host_of(address)
                || self.node_id() == Some(node))
    }

    /// The node id, if that is what the certificate is bound to.
    pub fn node_id(&self) -> Option<u64> {
        self.name.parse().ok()
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host_of(address: &str) -> &str {
    if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return address;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(uri: &str) -> Result<Self, String> {
        let malformed = || format!("{uri:?} is not of the form {SCHEME}CLUSTER/ROLE/NAME");
        let rest = uri.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let known = Role::ALL.into_iter().find(|known| known.as_str() == role);
        let role = known.ok_or_else(|| format!("{uri:?} names the unknown role {role:?}"))?;
        Self::new(cluster, role, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_written() {
        for text in [
            "flott://c/jobmanager/10.0.0.1:6123",
            "flott://prod.eu-1/jobmanager/7",
            "flott://c/taskmanager/*",
            "flott://c/client/ada@example.org",
            "flott://c/jobmanager/[::1]:6123",
        ] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn any_text_is_an_identity_or_refused() {
        let seeds = [
            "flott://c/jobmanager/10.0.0.1:6123",
            "flott://prod.eu-1/client/ada@example.org",
        ];
        let words = ["/", "jobmanager", "[::1]", "%2f", "é", "*"];
        let seeds = flott_decoders::Seeds::of(seeds).words(words);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            match flott_decoders::told(text.parse::<Identity>()) {
                Ok(identity) => {
                    assert_eq!(identity.to_string(), text);
                    let names = |id| identity.names_member(id, "h:1");
                    let bound = identity.node_id().map(names);
                    assert!(bound.is_none_or(|names| names == (identity.role == Role::JobManager)));
                }
                Err(reason) => assert!(!reason.is_empty()),
            }
        });
    }

    #[test]
    fn what_is_no_identity_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "form"),
            ("https://c/jobmanager/a", "form"),
            ("flott://c/jobmanager", "form"),
            ("flott://c/jobmanager/a/b", "form"),
            ("flott://c/admin/a", "unknown role \"admin\""),
            ("flott://c/JobManager/a", "unknown role"),
            ("flott:///jobmanager/a", "cluster name"),
            ("flott://c/jobmanager/", "name \"\""),
            ("flott://c/client/a b", "name \"a b\""),
            ("flott://c/client/a%2fb", "name \"a%2fb\""),
            ("flott://c/client/é", "name"),
        ] {
            let error = text.parse::<Identity>().unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        assert!(Identity::new("c", Role::Client, &"x".repeat(256)).is_err());
    }

    #[test]
    fn a_certificate_has_one_identity_whatever_else_it_names() {
        let other = "spiffe://x/y";
        let one = "flott://c/client/a";
        assert!(Identity::among([other, one].into_iter()).is_ok());
        let none = Identity::among([other].into_iter()).unwrap_err();
        assert!(none.contains("no Flott identity"), "{none}");
        let two = Identity::among([one, one].into_iter()).unwrap_err();
        assert!(two.contains("more than one"), "{two}");
    }

    #[test]
    fn a_jobmanagers_name_is_its_host_or_address_or_node_id() {
        let address = "h1.example:6123";
        for (name, role, fits) in [
            ("h1.example", Role::JobManager, true),
            ("h1.example:6123", Role::JobManager, true),
            ("3", Role::JobManager, true),
            ("4", Role::JobManager, false),
            ("h1", Role::JobManager, false),
            ("h1.example:6124", Role::JobManager, false),
            ("h2.example", Role::JobManager, false),
            ("*", Role::JobManager, false),
            ("h1.example", Role::TaskManager, false),
            ("3", Role::Client, false),
        ] {
            let identity = Identity::new("c", role, name).unwrap();
            assert_eq!(identity.names_member(3, address), fits, "{identity}");
        }
        let v6 = Identity::new("c", Role::JobManager, "::1").unwrap();
        assert!(v6.names_member(3, "[::1]:6123"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(flott://)?\\PC{0,40}") {
            if let Ok(identity) = text.parse::<Identity>() {
                proptest::prop_assert_eq!(identity.to_string(), text);
            }
        }
    }
}
