"""The paper-discovery site, built on the library."""
