"""The page to edit faces on."""
