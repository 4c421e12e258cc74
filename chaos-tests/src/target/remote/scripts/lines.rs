//! Scripts that make the lines to some machines late, thin or lossy: by the kernel's queues, for what is said and not for what
//! is heard.
//!
//! ```text
//! root HANDLE: htb ─┬─ everybody else: as fast as it goes
//!                   └─ to these machines ──▶ a handle of its own: netem or tbf
//! ```
//!
//! A machine whose interface has queues of its own making is left alone, for the kernel refuses a second root.

use std::net::IpAddr;

use super::{Fault, Lease};

/// Marks the root as ours, beside its handle.
const MARK: u32 = 7;
/// The first of the handles that nobody gives by hand, and how many roots have one.
const HANDLES: (u32, u32) = (0x4000, 0x3000);
/// Packets that wait: more than are on their way for 150 ms on a fast line, else they were lost and not late.
const QUEUE_MAX: u32 = 100_000;
/// Of those that are overtaken by the others: so late.
const OVERTAKEN_MS: u64 = 20;

/// What is done to what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Late by so many milliseconds.
    Late(u64),
    /// Through a line of so many bytes a second.
    Thin(u64),
    /// Of a thousand, so many are lost.
    Loss(u64),
    /// Of a thousand, so many come twice.
    Duplicate(u64),
    /// Of a thousand, so many are overtaken.
    Reorder(u64),
}

impl Shape {
    /// As `tc` is told.
    fn queue(self) -> String {
        let percent = |permille: u64| {
            let permille = permille.min(1_000);
            format!("{}.{}%", permille / 10, permille % 10)
        };
        match self {
            Self::Late(ms) => format!("netem delay {ms}ms limit {QUEUE_MAX}"),
            // A frame has to fit; what is above waits, and is lost when too much does.
            Self::Thin(bytes) => format!("tbf rate {}bit burst 16kb limit 65536", bytes * 8),
            Self::Loss(permille) => format!("netem loss {}", percent(permille)),
            Self::Duplicate(permille) => format!("netem duplicate {}", percent(permille)),
            Self::Reorder(permille) => format!(
                "netem delay {OVERTAKEN_MS}ms limit {QUEUE_MAX} reorder {}",
                percent(1_000 - permille.min(1_000))
            ),
        }
    }
}

/// Does that to what the machine says to these; the proof is how many packets met it.
pub fn shape(shape: Shape, peers: &[IpAddr], lease: Lease) -> Fault {
    let handle = HANDLES.0 + lease.token.number % HANDLES.1;
    let (root, child) = (format!("{handle:x}:"), format!("{:x}:", handle + HANDLES.1));
    let known = format!(
        r#"lift() {{
  packets=0 left=
  command -v tc >/dev/null || return 0
  all=$(tc qdisc show 2>&1) || unclear "tc: $all"
  for dev in $(printf '%s\n' "$all" | sed -n 's/^qdisc htb {root} dev \([^ ]*\) root.* r2q {MARK} .*/\1/p'); do
    left=yes
    for count in $(tc -s qdisc show dev "$dev" | sed -n '/^qdisc [a-z]* {child} /{{n;s/.* \([0-9]*\) pkt.*/\1/p;}}'); do
      packets=$((packets + count))
    done
    out=$(tc qdisc del dev "$dev" root handle {root} 2>&1) || unclear "tc: $out"
  done
  [ -n "$left" ] || value gone yes
}}
"#
    );
    let mut body = guard(peers.iter());
    body += r#"for tool in ip tc; do
  command -v "$tool" >/dev/null || quit "there is no $tool"
done
devs=
"#;
    for peer in peers {
        let (protocol, family, bits, priority) = match peer {
            IpAddr::V4(_) => ("ip", "ip", 32, 1),
            IpAddr::V6(_) => ("ipv6", "ip6", 128, 2),
        };
        body += &format!(
            r#"dev=$(ip -o route get {peer} 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p')
[ -n "$dev" ] || {{ lift; quit 'it has no way to {peer}'; }}
case " $devs " in
  *" $dev "*) ;;
  *)
    try tc qdisc add dev "$dev" root handle {root} htb r2q {MARK}
    try tc class add dev "$dev" parent {root} classid {root}1 htb rate 10gbit quantum 60000
    try tc qdisc add dev "$dev" parent {root}1 handle {child} {}
    devs="$devs $dev"
    ;;
esac
try tc filter add dev "$dev" parent {root} protocol {protocol} prio {priority} u32 match {family} dst {peer}/{bits} flowid {root}1
"#,
            shape.queue()
        );
    }
    body += "finish \"on$devs\"\n";
    let undo = "lift\nvalue packets \"$packets\"\nhow='nothing of it is left'\n";
    Fault::armed(lease, &known, &body, undo)
}

/// Our own way to the machine must not be touched, as far as it is known: through `sudo` it is not.
pub(super) fn guard<'a>(peers: impl Iterator<Item = &'a IpAddr>) -> String {
    let mut peers: Vec<String> = peers.map(ToString::to_string).collect();
    peers.sort();
    peers.dedup();
    format!(
        r#"from=${{SSH_CONNECTION%% *}}
case " {} " in *" ${{from:-nobody}} "*) quit "this shell comes from $from, which it would be cut off from" ;; esac
"#,
        peers.join(" ")
    )
}
