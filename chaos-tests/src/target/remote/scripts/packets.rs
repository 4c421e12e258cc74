//! Scripts that drop what comes from some machines and goes to them, and that break connections.
//!
//! Rules lie in a chain of their own, whose name is the fault's: so it is known which are to be removed, and how many packets
//! they met is known without any other rule of the machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::lines::guard;
use super::{Fault, Lease, Token};

/// For the two families of addresses.
const TOOLS: [&str; 2] = ["iptables", "ip6tables"];

/// What a machine does not hear any more, and does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// Of these it hears nothing.
    pub from: Vec<IpAddr>,
    /// To these it says nothing.
    pub to: Vec<IpAddr>,
}

/// Cuts a machine off from others, for TCP of all ports; the proof is how many packets met the cut.
pub fn cut(silence: &Silence, lease: Lease) -> Fault {
    let known = known(silence, lease.token);
    let body = format!("{}on\nfinish\n", lay(silence, lease.token));
    Fault::armed(lease, &known, &body, LIFTED)
}

/// The same, every other second, for as long as it lives. The script lasts as long.
pub fn flap(silence: &Silence, lease: Lease) -> Fault {
    let known = known(silence, lease.token);
    let body = format!(
        r#"{}rounds=0
while [ "$rounds" -lt {} ] && [ -e "$dir/armed" ]; do
  on
  sleep 1
  off
  sleep 1
  rounds=$((rounds + 1))
done
[ -e "$dir/armed" ] || unclear 'somebody has undone it meanwhile'
{LIFTED}rm -rf "$dir"
finish
"#,
        lay(silence, lease.token),
        (lease.lives.as_secs() / 2).max(1),
    );
    Fault::armed(lease, &known, &body, LIFTED)
}

/// Breaks the connections with these, again and again, for as long as it lives. The script lasts as long.
pub fn reset(peers: &[IpAddr], lease: Lease) -> Fault {
    let filter = peers.iter().map(|peer| match peer {
        IpAddr::V4(peer) => format!("dst {peer}"),
        IpAddr::V6(peer) => format!("dst [{peer}]"),
    });
    let body = format!(
        r#"{}command -v ss >/dev/null || quit 'there is no ss'
broken=0 why='it had no connections'
end=$(($(date +%s) + {}))
while [ "$(date +%s)" -lt "$end" ] && [ -e "$dir/armed" ]; do
  # It lists what it has broken.
  out=$(ss -K -t -n -H '{}' 2>&1) || why="ss: $out"
  case "$out" in *RTNETLINK*) why="ss: $out" ;; esac
  broken=$((broken + $(printf '%s\n' "$out" | grep -c '^[A-Z][A-Z0-9-]* *[0-9]')))
  nap
done
rm -rf "$dir"
[ "$broken" -gt 0 ] || skip "$why"
finish "$broken connections broken"
"#,
        guard(peers.iter()),
        lease.lives.as_secs().max(1),
        filter.collect::<Vec<_>>().join(" or ")
    );
    Fault::armed(lease, "", &body, "how='it ends'\n")
}

/// Removes the chain, and counts what it met.
const LIFTED: &str = r#"lift
value packets "$packets"
how='nothing of it is left'
"#;

/// `lift` and what it needs, for the families of addresses that are in it.
fn known(silence: &Silence, token: Token) -> String {
    let tools: Vec<&str> = by_tool(silence).into_keys().collect();
    format!(
        r#"lift() {{
  packets=0 left=
  for tool in {}; do
    command -v "$tool" >/dev/null || continue
    rules=$("$tool" -w 5 -S 2>&1) || unclear "$tool: $rules"
    case "$rules" in *'-N {token}'*) ;; *) continue ;; esac
    left=yes
    counts=$("$tool" -w 5 -nvxL {token} | sed -n 's/^ *\([0-9][0-9]*\) .*/\1/p')
    for count in $counts; do packets=$((packets + count)); done
    while "$tool" -w 5 -D INPUT -j {token} 2>/dev/null; do :; done
    while "$tool" -w 5 -D OUTPUT -j {token} 2>/dev/null; do :; done
    "$tool" -w 5 -F {token} 2>/dev/null
    out=$("$tool" -w 5 -X {token} 2>&1) || unclear "$tool: $out"
  done
  [ -n "$left" ] || value gone yes
}}
"#,
        tools.join(" ")
    )
}

/// The chain, not yet in the way; `on` and `off` put it there and away.
fn lay(silence: &Silence, token: Token) -> String {
    let mut text = guard(silence.from.iter().chain(&silence.to));
    let (mut on, mut off) = (String::new(), String::new());
    for (tool, rules) in by_tool(silence) {
        text += &format!(
            r#"command -v {tool} >/dev/null || quit 'there is no {tool}'
out=$({tool} -w 5 -S 2>&1) || quit "{tool}: $out"
try {tool} -w 5 -N {token}
"#
        );
        for rule in rules {
            text += &format!("try {tool} -w 5 -A {token} -p tcp {rule} -j DROP\n");
        }
        for chain in ["INPUT", "OUTPUT"] {
            on += &format!("  try {tool} -w 5 -I {chain} -j {token}\n");
            off += &format!("  {tool} -w 5 -D {chain} -j {token} 2>/dev/null\n");
        }
    }
    text + &format!("on() {{\n{on}}}\noff() {{\n{off}}}\n")
}

/// The other ends, by the tool for their family of addresses.
fn by_tool(silence: &Silence) -> BTreeMap<&'static str, Vec<String>> {
    let mut rules: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let directions = [("-s", &silence.from), ("-d", &silence.to)];
    for (direction, addresses) in directions {
        for address in addresses {
            let tool = TOOLS[usize::from(address.is_ipv6())];
            let rules = rules.entry(tool).or_default();
            rules.push(format!("{direction} {address}"));
        }
    }
    rules
}
