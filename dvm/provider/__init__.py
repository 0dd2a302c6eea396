"""What does the work of a job: pure computation behind one Protocol, for sale or as a buyer's last resort."""
