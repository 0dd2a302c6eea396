"""What every folder may use: errors, time, money, ids, and the Protocols that cross folders. Pure."""
