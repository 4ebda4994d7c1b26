//! File names, which may be any bytes: what is made of them stays one component of at most 255
//! bytes, and what is shown of them moves no cursor.

#![no_main]

use std::sync::LazyLock;

use intentd::limits::NAME_BYTES_MAX;
use intentd::model::{FileName, derived, is_refused, printable_json};
use intentd::schema::NameRule;
use intentd::spool::claim_order;
use libfuzzer_sys::fuzz_target;

static RULE: LazyLock<NameRule> = LazyLock::new(|| {
    NameRule::new(&["intent-*.json", "*.intent.json"].map(str::to_owned)).expect("good patterns")
});

fuzz_target!(|bytes: &[u8]| {
    let name = FileName::new(bytes);
    let safe = name.safe();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(safe.bytes().all(plain) && !safe.contains("..") && !safe.is_empty() && safe != ".");
    assert!(!name.to_string().contains(is_refused), "{name:?}");
    let json = printable_json(&name).expect("a name can be written");
    assert!(!json.contains(is_refused), "{json:?}");
    let written = serde_json::to_string(&name).expect("a name can be written");
    let read = |json| serde_json::from_str::<String>(json).expect("what is written can be read");
    assert_eq!(read(&json), read(&written));

    let (epoch, n) = (bytes.len() as u64, u64::MAX);
    let claim = derived(&format!("{epoch}.{n}."), bytes, "");
    assert!(claim.len() <= NAME_BYTES_MAX);
    assert_eq!(claim_order(&claim), Some((epoch, n)));
    let reason = derived(&format!("{n}."), safe.as_bytes(), ".reason.json");
    assert!(reason.len() <= NAME_BYTES_MAX && reason.ends_with(b".reason.json"));
    let _any = claim_order(bytes);

    if RULE.check(bytes).is_ok() {
        // A proper name is used as it is.
        assert_eq!(safe.as_bytes(), bytes, "{name:?}");
    }
    let _taken = RULE.takes(bytes);
});
