"""Money: Cashu, the payment saga, the double-entry journal, budgets and FX. Does not know what is paid for."""
