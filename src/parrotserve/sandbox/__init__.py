"""The sandbox: runs functions that clients send, in child processes that have nothing and are ended at their limits."""
