//! A script that keeps the processors of a machine busy.

use super::{Fault, Lease};

/// So many loops that end when the fault does.
pub fn busy(loops: u64, lease: Lease) -> Fault {
    let body = format!(
        r#"started=0
while [ "$started" -lt {loops} ]; do
  (while [ -e "$dir/armed" ]; do :; done) >/dev/null 2>&1 </dev/null &
  started=$((started + 1))
done
finish "$started loops"
"#
    );
    let undo = "[ -e \"$dir/armed\" ] || value gone yes\nhow='the loops end'\n";
    Fault::armed(lease, "", &body, undo)
}
