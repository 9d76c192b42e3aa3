"""Routes, one file a noun. Each turns an exchange into one call of the service."""
