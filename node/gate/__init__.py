"""The one gate through which every effect goes, and the signed ledger of what it let through."""
