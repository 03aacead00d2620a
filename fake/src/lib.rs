//! A provider that answers as hosted ones do, fails as they fail, and counts what it would bill. For tests alone.
