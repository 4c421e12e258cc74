//! A script that says what a machine has, and does nothing to it.

use std::path::Path;

use super::process::look;
use super::{quoted, whole};
use crate::target::remote::inventory::Host;

/// What it is asked for, each answered by `ok` or by why not. Queues are tried in a network namespace that ends at once, so
/// that none of the machine's is touched.
pub const ABILITIES: [(&str, &str); 6] = [
    (
        "iptables",
        "have iptables && { out=$(iptables -w 5 -S 2>&1) || no \"$out\"; }",
    ),
    (
        "ip6tables",
        "have ip6tables && { out=$(ip6tables -w 5 -S 2>&1) || no \"$out\"; }",
    ),
    (
        "tbf",
        "have ip && have tc && queue tbf rate 1mbit burst 16kb limit 65536",
    ),
    ("netem", "have ip && have tc && queue netem delay 1ms"),
    (
        "ss",
        "have ss && { [ \"$(id -u)\" = 0 ] || no 'it needs root'; }",
    ),
    (
        "self-undo",
        "command -v setsid >/dev/null || command -v nohup >/dev/null || no 'there is no setsid and no nohup'",
    ),
];

/// What the machine of that process has; and whether it has this file, too.
pub fn probe(host: &Host, shared: Option<&Path>) -> String {
    let mut body = look(host);
    body += r#"# In a shell of its own, so that what is missing ends only that.
no() { printf '%s\n' "$*"; exit 1; }
have() { command -v "$1" >/dev/null || no "there is no $1"; }
queue() {
  unshare -n true 2>/dev/null || no 'it cannot be tried here without unshare -n'
  for try in "qdisc add dev lo root handle 1: htb" "class add dev lo parent 1: classid 1:1 htb rate 1gbit quantum 60000" "qdisc add dev lo parent 1:1 $*" "filter add dev lo parent 1: protocol ip prio 1 u32 match ip dst 192.0.2.1/32 flowid 1:1"; do
    batch="$batch$try
"
  done
  out=$(printf '%s' "$batch" | unshare -n tc -batch - 2>&1) || no "$out"
}
value user "$(id -u)"
value from "${SSH_CONNECTION%% *}"
seen=$(look && kill -0 "$pid" 2>/dev/null && echo "$pid $born")
case "$seen" in
  '') value no-process "$(if look; then kill -0 "$pid" 2>&1; else echo "$none"; fi)" ;;
  *) value process "$seen" ;;
esac
"#;
    if host.addresses.is_empty() {
        body += "value addresses $(hostname -i 2>&1)\n";
    }
    if let Some(shared) = shared {
        let file = quoted(&shared.display().to_string());
        body += &format!("if [ -e {file} ]; then value shares yes; else value shares no; fi\n");
    }
    for (name, test) in ABILITIES {
        body += &format!(
            "why=$(batch=; {test}; exit 0) && [ -z \"$why\" ] && why=ok\nvalue {name} $why\n"
        );
    }
    body += "finish\n";
    whole(&body)
}
