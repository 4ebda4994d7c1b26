//! A configuration file that says anything: refused with a message, or shown in a form that loads
//! as the same configuration.

#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use intentd::config::{Error, Loaded, Overrides, load};
use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("intentd-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
    directory.join("intentd.toml")
});

fuzz_target!(|text: &str| {
    // A template is read where it stands, and no device is to be read.
    if ["/dev", "/proc", "/sys"].iter().any(|place| text.contains(place)) {
        return;
    }
    match read(text) {
        Ok(loaded) => {
            let shown = loaded.show(false);
            let again = read(&shown).unwrap_or_else(|error| panic!("{error}:\n{shown}"));
            assert_eq!(again.show(false), shown);
            assert!(loaded.changes_for_a_restart(&again).is_empty(), "{shown}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn read(text: &str) -> Result<Loaded, Error> {
    std::fs::write(&*FILE, text).expect("the file can be written");
    let overrides = Overrides { file: Some(FILE.clone()), ..Overrides::default() };
    load(&overrides, &BTreeMap::new(), true)
}
