"""Several processes on one database: who is in, who leads, who ticks which agent."""
