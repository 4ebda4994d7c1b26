//! Names packages: one name per target, a DNS-1123 label whatever the lengths.
//!
//! Two targets may share a name (`a-b` + `c`, `a` + `b-c`); who delivers finds out by the
//! `intent.yaml` that stands there.

use crate::model::{Digest, IntentType, TargetKey};

/// Longest DNS-1123 label, and so longest package name that Porch takes.
const LABEL_BYTES_MAX: usize = 63;

/// `scale-`, `deployment-` or `configuration-<namespace>-<target>`; what would pass 63 bytes is cut
/// and ends in `-` and eight hex digits of the whole name's digest.
pub fn package_name(key: &TargetKey) -> String {
    let kind = match key.intent_type {
        IntentType::Scaling => "scale",
        IntentType::Deployment => "deployment",
        IntentType::Configuration => "configuration",
    };
    let whole = format!("{kind}-{}-{}", key.namespace, key.target);
    if whole.len() <= LABEL_BYTES_MAX {
        return whole;
    }
    let suffix = Digest::of(whole.as_bytes()).short();
    let room = LABEL_BYTES_MAX - 1 - suffix.len();
    format!("{}-{suffix}", whole[..room].trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(intent_type: IntentType, namespace: &str, target: &str, name: &str) {
        let key =
            TargetKey { intent_type, namespace: namespace.to_owned(), target: target.to_owned() };
        assert_eq!(package_name(&key), name);
    }

    #[test]
    fn a_name_tells_kind_namespace_and_target_and_fits_a_label() {
        check(IntentType::Scaling, "ran-a", "nf-sim", "scale-ran-a-nf-sim");
        check(IntentType::Deployment, "a", "b", "deployment-a-b");
        check(IntentType::Configuration, "a", "b", "configuration-a-b");
        let (left, right) = ("n".repeat(28), "t".repeat(28));
        check(IntentType::Scaling, &left, &right, &format!("scale-{left}-{right}"));
        let long = "t".repeat(63);
        let whole = format!("scale-ns-{long}");
        let hash = Digest::of(whole.as_bytes()).short();
        check(IntentType::Scaling, "ns", &long, &format!("scale-ns-{}-{hash}", "t".repeat(45)));
        let dashed = format!("{}-{}", "t".repeat(44), "u".repeat(18));
        let hash = Digest::of(format!("scale-ns-{dashed}").as_bytes()).short();
        check(IntentType::Scaling, "ns", &dashed, &format!("scale-ns-{}-{hash}", "t".repeat(44)));
    }
}
