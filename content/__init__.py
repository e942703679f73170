"""What is taught: lessons, checks, courses, media and help, in MongoDB and S3. Knows neither HTTP nor push."""
