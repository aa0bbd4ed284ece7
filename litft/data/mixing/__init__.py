"""The steps of `litft prepare mix` and `join`: parts, equal rows, filters, shares, order, and the result."""
