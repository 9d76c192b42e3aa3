"""Routes, one file per noun. Each turns an exchange into one call of the service."""
