//! A network for the members of a group: a namespace each, joined by a bridge on which any directed pair can be cut.
//!
//! ```text
//!   room: clients ── 10.77.0.254 br0 ──┬── v1 ── eth0 10.77.0.1 (namespace jm1)
//!         nftables, table `bridge chaos` ├── v2 ── eth0 10.77.0.2 (namespace jm2)
//!         drops (from, to) in set `cut`  └── …
//! ```
//!
//! Frames are dropped where they are forwarded, so the sender notices nothing, as with a broken cable between switches.
//! Clients sit on the bridge itself and reach every member on either side of a cut: the hardest place to keep a deposed
//! leader from being believed.
//!
//! Must stay true: this is laid only inside of a [`super::room`].

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::ensure;
use tokio::sync::Mutex;

use super::room;

/// Members that there can be: addresses are 10.77.0.1 and so on.
pub const MEMBERS_MAX: u32 = 9;

/// Address and port of a member.
pub fn address(member: u32) -> String {
    format!("10.77.0.{member}:6123")
}

/// Host part of [`address`].
pub fn host(member: u32) -> String {
    format!("10.77.0.{member}")
}

/// The network namespace of a member, for `nsenter --net=`.
pub fn namespace(member: u32) -> PathBuf {
    PathBuf::from(format!("/run/netns/jm{member}"))
}

fn hardware_address(member: u32) -> String {
    format!("02:00:00:00:00:{member:02x}")
}

/// The network, and who cannot reach whom at present.
#[derive(Debug, Default)]
pub struct Network {
    /// How many faults want this pair to be cut: faults overlap.
    cut: Mutex<BTreeMap<(u32, u32), u32>>,
}

impl Network {
    /// Makes the bridge and a namespace for each of `members`.
    pub async fn lay(members: u32) -> anyhow::Result<Self> {
        ensure!(
            room::is_inside(),
            "networks are made only inside of a room, never on the machine itself"
        );
        ensure!(members <= MEMBERS_MAX, "at most {MEMBERS_MAX} members");
        let mut batch = String::from(
            "link add br0 type bridge\nlink set br0 address 02:00:00:00:00:fe\n\
             addr add 10.77.0.254/24 dev br0\nlink set br0 up\n",
        );
        for member in 1..=members {
            room::command("ip", ["netns", "add", &format!("jm{member}")]).await?;
            // Writing to a string cannot fail.
            let _ = writeln!(
                batch,
                "link add v{member} type veth peer name eth0 address {} netns jm{member}\n\
                 link set v{member} master br0 up",
                hardware_address(member)
            );
        }
        room::feed("ip", ["-batch", "-"], &batch).await?;
        for member in 1..=members {
            let mut batch = format!(
                "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n",
                host(member)
            );
            // Who is where is known for good: a cut in one direction must not stop the other by way of ARP.
            for other in (1..=members).filter(|other| *other != member) {
                let _ = writeln!(
                    batch,
                    "neigh add {} lladdr {} dev eth0 nud permanent",
                    host(other),
                    hardware_address(other)
                );
            }
            room::feed("ip", ["-n", &format!("jm{member}"), "-batch", "-"], &batch).await?;
        }
        let rules = "table bridge chaos {\n set cut { type ether_addr . ether_addr; }\n chain forwarded {\n \
                     type filter hook forward priority 0; policy accept;\n \
                     ether saddr . ether daddr @cut drop\n }\n}\n";
        room::feed("nft", ["-f", "-"], rules).await?;
        Ok(Self::default())
    }

    /// Drops all frames of these directed pairs until as many calls of [`Self::mend`] have named them.
    pub async fn cut(&self, pairs: &[(u32, u32)]) -> anyhow::Result<()> {
        let mut cut = self.cut.lock().await;
        for pair in pairs {
            *cut.entry(*pair).or_default() += 1;
        }
        apply(&cut).await
    }

    /// Undoes one [`Self::cut`] of the same pairs.
    pub async fn mend(&self, pairs: &[(u32, u32)]) -> anyhow::Result<()> {
        let mut cut = self.cut.lock().await;
        for pair in pairs {
            if let Some(wanted) = cut.get_mut(pair) {
                *wanted -= 1;
            }
        }
        cut.retain(|_, wanted| *wanted > 0);
        apply(&cut).await
    }

    /// Undoes every cut.
    pub async fn heal(&self) -> anyhow::Result<()> {
        let mut cut = self.cut.lock().await;
        cut.clear();
        apply(&cut).await
    }
}

/// Makes the switch's set what is wanted, in one transaction.
async fn apply(cut: &BTreeMap<(u32, u32), u32>) -> anyhow::Result<()> {
    let mut rules = String::from("flush set bridge chaos cut\n");
    for (from, to) in cut.keys() {
        let _ = writeln!(
            rules,
            "add element bridge chaos cut {{ {} . {} }}",
            hardware_address(*from),
            hardware_address(*to)
        );
    }
    room::feed("nft", ["-f", "-"], &rules).await
}
