"""Reports for people: one HTML file that holds everything, its drawings as SVG; needs nothing but Python."""
